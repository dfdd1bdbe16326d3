// Checks of an operator's tensors and their translation to Arguments, shared by all devices.
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "layout.h"
#include "tensors.h"

namespace snm {

// How messages name the ops.
constexpr const char* kSnm = "snm";
constexpr const char* kCounted = "snm_counted";

inline DType drive_type(const char* op, ScalarType type) {
  const DType found = dtype_of(type);
  require(is_floating(found) || found == DType::kInt32, op, "x",
          "float32, float16, bfloat16 or int32", torch::headeronly::toString(type));
  return found;
}

inline DType spikes_type(const char* op, ScalarType type) {
  const DType found = dtype_of(type);
  require(is_floating(found) || found == DType::kInt8, op, "spikes",
          "float32, float16, bfloat16 or int8", torch::headeronly::toString(type));
  return found;
}

inline Rule checked_rule(const char* op, double v_init, std::optional<double> negative_threshold,
                         bool strict, int64_t max_spikes, int64_t count_min, int64_t count_max) {
  constexpr int64_t least = std::numeric_limits<int32_t>::min();
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  require(max_spikes >= 1 && max_spikes <= 127, op, "max_spikes", "1 to 127", max_spikes);
  require(count_min >= least && count_min <= 0, op, "count_min", "an int32 <= 0", count_min);
  require(count_max <= most && count_max >= 0, op, "count_max", "an int32 >= 0", count_max);
  require(negative_threshold.value_or(0.0) >= 0.0, op, "negative_threshold", "at least 0",
          negative_threshold.value_or(0.0));
  const double ratio = negative_threshold.value_or(std::numeric_limits<double>::quiet_NaN());
  return {static_cast<float>(v_init),      static_cast<float>(ratio),
          strict,                          static_cast<int32_t>(max_spikes),
          static_cast<int32_t>(count_min), static_cast<int32_t>(count_max)};
}

// A call of torch's own, where going through its dispatcher by name takes longer than a small run.
inline Tensor empty_strided(const Tensor& x, IntHeaderOnlyArrayRef sizes,
                            IntHeaderOnlyArrayRef strides, ScalarType type) {
  int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device));
  const auto dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()),
                                                  sizes.data(), strides.data(), dtype, device,
                                                  x.get_device_index(), &made));
  return Tensor(made);
}

// Whether these are the strides of a contiguous tensor, those of dimensions of size 1 included.
inline bool contiguous(IntHeaderOnlyArrayRef sizes, IntHeaderOnlyArrayRef strides) {
  int64_t step = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    if (sizes[d] == 0 || strides[d] != step) return false;
    step *= sizes[d];
  }
  return true;
}

// An empty membrane for drive x, in the memory format of its time slices.
inline Tensor empty_membrane(const Tensor& x, ScalarType type) {
  const auto sizes = slice(x.sizes());
  const auto strides = slice(x.strides());
  if (contiguous(sizes, strides)) return empty_strided(x, sizes, strides, type);
  return empty_like(torch::stable::select(x, 0, 0), type);
}

// What check_same() asks. Asked first, as its messages take longer to write than a small run.
inline bool is_same(const Tensor& tensor, IntHeaderOnlyArrayRef sizes, ScalarType type,
                    const Tensor& x) {
  return tensor.scalar_type() == type && equal(tensor.sizes(), sizes) &&
         tensor.device() == x.device();
}

// The tensors of one run, kept alive while its kernel reads them, and the kernel's arguments.
class Run {
 public:
  Run(const char* op, const Tensor& x, const Tensor& threshold, const std::optional<Tensor>& v,
      const std::optional<Tensor>& m, const std::optional<Tensor>& bias,
      const std::optional<Tensor>& residual, const Rule& rule)
      : op_(op) {
    if (x.dim() == 0 || x.size(0) == 0) {
      require(false, op_, "x", "[T, *shape] with T >= 1", shown(x.sizes()));
    }
    kept_.reserve(7);
    const bool integers = threshold.scalar_type() == ScalarType::Int;
    if (integers && x.scalar_type() != ScalarType::Int) {
      require(false, op_, "x", "int32 with an int32 threshold",
              torch::headeronly::toString(x.scalar_type()));
    }
    number_ = integers ? ScalarType::Int : ScalarType::Float;
    v_out = empty_membrane(x, number_);
    m_out = empty_strided(x, v_out.sizes(), v_out.strides(), ScalarType::Int);
    arguments_.rule = rule;
    arguments_.time_steps = x.size(0);
    arguments_.neurons = v_out.numel();
    arguments_.drive_type = drive_type(op_, x.scalar_type());
    arguments_.integers = integers;
    const Tensor drive = aligned(x);
    arguments_.drive = keep(drive).const_data_ptr();
    arguments_.drive_step = drive.stride(0);
    arguments_.threshold = periodic("threshold", threshold);
    if (bias.has_value()) arguments_.bias = periodic("bias", *bias);
    if (residual.has_value()) {
      if (!is_same(*residual, x.sizes(), x.scalar_type(), x)) {
        check_same(op_, "residual", *residual, x.sizes(), x.scalar_type(), x);
      }
      const Tensor added = aligned(*residual);
      arguments_.residual = keep(added).const_data_ptr();
      arguments_.residual_step = added.stride(0);
    }
    if (v.has_value()) arguments_.v_in = state("v", *v, v_out);
    if (m.has_value()) arguments_.m_in = counts("m", *m, m_out);
    arguments_.v_out = v_out.mutable_data_ptr();
    arguments_.m_out = m_out.mutable_data_ptr<int32_t>();
    arguments_.spikes_type = DType::kNone;
  }

  // Counts negative spikes as well, on from these; returns where they are counted.
  Tensor count(const std::optional<Tensor>& negative) {
    Tensor counted = empty_strided(m_out, m_out.sizes(), m_out.strides(), ScalarType::Int);
    if (negative.has_value()) {
      arguments_.negative_in = counts("negative", *negative, counted);
    }
    arguments_.negative_out = counted.mutable_data_ptr<int32_t>();
    return counted;
  }

  // Where the spikes go, allocated here in the drive's memory format; size 0 without a type.
  Tensor allocate_spikes(const Tensor& x, std::optional<ScalarType> type) {
    if (!type.has_value()) {
      const int64_t none = 0;
      const int64_t step = 1;
      return empty_strided(x, {&none, 1}, {&step, 1}, ScalarType::Char);
    }
    const Tensor spikes = empty_strided(x, x.sizes(), dense_strides(), *type);
    set_spikes(spikes);
    return spikes;
  }

  // Where the spikes go, given by the caller.
  void use_spikes(const Tensor& x, const Tensor& out) {
    if (!is_same(out, x.sizes(), out.scalar_type(), x)) {
      check_same(op_, "out", out, x.sizes(), out.scalar_type(), x);
    }
    const bool adjacent = out.size(0) == 1 || out.stride(0) >= arguments_.neurons;
    if (!adjacent || !same_places(v_out.sizes(), slice(out.strides()), v_out.strides())) {
      require(false, op_, "out", "of strides " + shown(dense_strides()), shown(out.strides()));
    }
    set_spikes(out);
  }

  const Arguments& arguments() const { return arguments_; }

  Tensor v_out;
  Tensor m_out;

 private:
  const Tensor& keep(const Tensor& tensor) { return kept_.emplace_back(tensor); }

  std::vector<int64_t> dense_strides() const {
    std::vector<int64_t> strides(1 + v_out.dim(), v_out.numel());
    std::copy_n(v_out.strides().begin(), v_out.dim(), strides.begin() + 1);
    return strides;
  }

  // [T, *shape] with every time slice laid out as v_out; copied only if it isn't.
  Tensor aligned(const Tensor& tensor) const {
    if (same_places(v_out.sizes(), slice(tensor.strides()), v_out.strides())) return tensor;
    Tensor copy = empty_strided(tensor, tensor.sizes(), dense_strides(), tensor.scalar_type());
    return torch::stable::copy_(copy, tensor);
  }

  const int32_t* counts(const char* argument, const Tensor& given, const Tensor& like) {
    return static_cast<const int32_t*>(state(argument, given, like));
  }

  const void* state(const char* argument, const Tensor& given, const Tensor& like) {
    if (!is_same(given, like.sizes(), like.scalar_type(), like)) {
      check_same(op_, argument, given, like.sizes(), like.scalar_type(), like);
    }
    if (same_places(like.sizes(), given.strides(), like.strides())) {
      return keep(given).const_data_ptr();
    }
    Tensor copy = empty_like(like, like.scalar_type());
    return keep(torch::stable::copy_(copy, given)).const_data_ptr();
  }

  Periodic periodic(const char* argument, const Tensor& given) {
    const auto sizes = v_out.sizes();
    const auto strides = v_out.strides();
    const bool whole = given.dim() > 0;
    if (!is_same(given, whole ? sizes : given.sizes(), number_, v_out)) {
      check_parameter(op_, argument, given, sizes, v_out, number_);
    }
    const int64_t missing = v_out.dim() - given.dim();
    Repeat repeat = repeat_over(given);
    Tensor values = given;
    if (!repeat.regular) {
      const std::vector<int64_t> spread =
          spread_sizes(v_out.dim(), sizes.data(), strides.data(), given.dim(),
                       given.sizes().data(), given.strides().data());
      Tensor once = given;
      for (int64_t d = 0; d < given.dim(); ++d) {
        if (spread[d + missing] == 1) once = torch::stable::narrow(once, d, 0, 1);
      }
      values = empty_strided(given, spread, strides, number_);
      torch::stable::copy_(values, once);
      repeat = repeat_over(values);
    }
    return {keep(values).const_data_ptr(), repeat.inner, repeat.period};
  }

  Repeat repeat_over(const Tensor& parameter) const {
    return repeat_over_slice(v_out.dim(), v_out.sizes().data(), v_out.strides().data(),
                             parameter.dim(), parameter.sizes().data(),
                             parameter.strides().data());
  }

  void set_spikes(const Tensor& spikes) {
    arguments_.spikes_type = spikes_type(op_, spikes.scalar_type());
    if (arguments_.integers && arguments_.spikes_type != DType::kInt8) {
      require(false, op_, "spikes", "int8 with an int32 threshold",
              torch::headeronly::toString(spikes.scalar_type()));
    }
    arguments_.spikes = spikes.mutable_data_ptr();
    arguments_.spikes_step = spikes.stride(0);
  }

  const char* op_;
  ScalarType number_;  // of parameters and membranes
  Arguments arguments_{};
  std::vector<Tensor> kept_;
};

using Launch = void (*)(const Arguments& arguments, const Tensor& x);

template <Launch launch>
std::tuple<Tensor, Tensor, Tensor> snm_op(
    Tensor x, Tensor threshold, std::optional<Tensor> v, std::optional<Tensor> m,
    std::optional<Tensor> bias, std::optional<Tensor> residual, double v_init,
    std::optional<double> negative_threshold, bool strict, int64_t max_spikes, int64_t count_min,
    int64_t count_max, std::optional<ScalarType> type) {
  Run run(kSnm, x, threshold, v, m, bias, residual,
          checked_rule(kSnm, v_init, negative_threshold, strict, max_spikes, count_min, count_max));
  Tensor spikes = run.allocate_spikes(x, type);
  if (run.arguments().neurons > 0) launch(run.arguments(), x);
  return {spikes, run.v_out, run.m_out};
}

template <Launch launch>
std::tuple<Tensor, Tensor> snm_out_op(
    Tensor x, Tensor threshold, std::optional<Tensor> v, std::optional<Tensor> m,
    std::optional<Tensor> bias, std::optional<Tensor> residual, double v_init,
    std::optional<double> negative_threshold, bool strict, int64_t max_spikes, int64_t count_min,
    int64_t count_max, Tensor out) {
  Run run(kSnm, x, threshold, v, m, bias, residual,
          checked_rule(kSnm, v_init, negative_threshold, strict, max_spikes, count_min, count_max));
  run.use_spikes(x, out);
  if (run.arguments().neurons > 0) launch(run.arguments(), x);
  return {run.v_out, run.m_out};
}

template <Launch launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> snm_counted_op(
    Tensor x, Tensor threshold, std::optional<Tensor> v, std::optional<Tensor> m,
    std::optional<Tensor> bias, std::optional<Tensor> residual, std::optional<Tensor> negative,
    double v_init, std::optional<double> negative_threshold, bool strict, int64_t max_spikes,
    int64_t count_min, int64_t count_max, std::optional<ScalarType> type) {
  Run run(kCounted, x, threshold, v, m, bias, residual,
          checked_rule(kCounted, v_init, negative_threshold, strict, max_spikes, count_min,
                       count_max));
  Tensor counted = run.count(negative);
  Tensor spikes = run.allocate_spikes(x, type);
  if (run.arguments().neurons > 0) launch(run.arguments(), x);
  return {spikes, run.v_out, run.m_out, counted};
}

template <Launch launch>
std::tuple<Tensor, Tensor, Tensor> snm_counted_out_op(
    Tensor x, Tensor threshold, std::optional<Tensor> v, std::optional<Tensor> m,
    std::optional<Tensor> bias, std::optional<Tensor> residual, std::optional<Tensor> negative,
    double v_init, std::optional<double> negative_threshold, bool strict, int64_t max_spikes,
    int64_t count_min, int64_t count_max, Tensor out) {
  Run run(kCounted, x, threshold, v, m, bias, residual,
          checked_rule(kCounted, v_init, negative_threshold, strict, max_spikes, count_min,
                       count_max));
  Tensor counted = run.count(negative);
  run.use_spikes(x, out);
  if (run.arguments().neurons > 0) launch(run.arguments(), x);
  return {run.v_out, run.m_out, counted};
}

}  // namespace snm
