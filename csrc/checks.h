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

// How messages name the op.
constexpr const char* kOp = "snm";

inline DType drive_type(ScalarType type) {
  const DType found = dtype_of(type);
  require(is_floating(found) || found == DType::kInt32, kOp, "x",
          "float32, float16, bfloat16 or int32", torch::headeronly::toString(type));
  return found;
}

inline DType spikes_type(ScalarType type) {
  const DType found = dtype_of(type);
  require(is_floating(found) || found == DType::kInt8, kOp, "spikes",
          "float32, float16, bfloat16 or int8", torch::headeronly::toString(type));
  return found;
}

inline Rule checked_rule(double v_init, std::optional<double> negative_threshold, bool strict,
                         int64_t max_spikes, int64_t count_min, int64_t count_max) {
  constexpr int64_t least = std::numeric_limits<int32_t>::min();
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  require(max_spikes >= 1 && max_spikes <= 127, kOp, "max_spikes", "1 to 127", max_spikes);
  require(count_min >= least && count_min <= 0, kOp, "count_min", "an int32 <= 0", count_min);
  require(count_max <= most && count_max >= 0, kOp, "count_max", "an int32 >= 0", count_max);
  const double ratio = negative_threshold.value_or(std::numeric_limits<double>::quiet_NaN());
  return {static_cast<float>(v_init),      static_cast<float>(ratio),
          strict,                          static_cast<int32_t>(max_spikes),
          static_cast<int32_t>(count_min), static_cast<int32_t>(count_max)};
}

// The tensors of one run, kept alive while its kernel reads them, and the kernel's arguments.
class Run {
 public:
  Run(const Tensor& x, const Tensor& threshold, const std::optional<Tensor>& v,
      const std::optional<Tensor>& m, const std::optional<Tensor>& bias,
      const std::optional<Tensor>& residual, const Rule& rule) {
    require(x.dim() >= 1 && x.size(0) >= 1, kOp, "x", "[T, *shape] with T >= 1",
            shown(x.sizes()));
    const Tensor first = torch::stable::select(x, 0, 0);
    v_out = empty_like(first, ScalarType::Float);
    m_out = empty_like(first, ScalarType::Int);
    arguments_.rule = rule;
    arguments_.time_steps = x.size(0);
    arguments_.neurons = v_out.numel();
    arguments_.drive_type = drive_type(x.scalar_type());
    const Tensor drive = aligned(x);
    arguments_.drive = keep(drive).const_data_ptr();
    arguments_.drive_step = drive.stride(0);
    arguments_.threshold = periodic("threshold", threshold);
    if (bias.has_value()) arguments_.bias = periodic("bias", *bias);
    if (residual.has_value()) {
      check_same(kOp, "residual", *residual, x.sizes(), x.scalar_type(), x);
      const Tensor added = aligned(*residual);
      arguments_.residual = keep(added).const_data_ptr();
      arguments_.residual_step = added.stride(0);
    }
    if (v.has_value()) arguments_.v_in = state<float>("v", *v, v_out);
    if (m.has_value()) arguments_.m_in = state<int32_t>("m", *m, m_out);
    arguments_.v_out = v_out.mutable_data_ptr<float>();
    arguments_.m_out = m_out.mutable_data_ptr<int32_t>();
    arguments_.spikes_type = DType::kNone;
  }

  // Where the spikes go, allocated here in the drive's memory format; size 0 without a type.
  Tensor allocate_spikes(const Tensor& x, std::optional<ScalarType> type) {
    if (!type.has_value()) return torch::stable::new_empty(x, {0}, ScalarType::Char);
    const Tensor spikes = new_empty_strided(x, x.sizes(), dense_strides(), *type);
    set_spikes(spikes);
    return spikes;
  }

  // Where the spikes go, given by the caller.
  void use_spikes(const Tensor& x, const Tensor& out) {
    check_same(kOp, "out", out, x.sizes(), out.scalar_type(), x);
    const bool adjacent = out.size(0) == 1 || out.stride(0) >= arguments_.neurons;
    require(adjacent && same_places(v_out.sizes(), slice(out.strides()), v_out.strides()), kOp,
            "out", "of strides " + shown(dense_strides()), shown(out.strides()));
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
    Tensor copy = new_empty_strided(tensor, tensor.sizes(), dense_strides(),
                                    tensor.scalar_type());
    return torch::stable::copy_(copy, tensor);
  }

  template <class T>
  const T* state(const char* argument, const Tensor& given, const Tensor& like) {
    check_same(kOp, argument, given, like.sizes(), like.scalar_type(), like);
    if (same_places(like.sizes(), given.strides(), like.strides())) {
      return keep(given).template const_data_ptr<T>();
    }
    Tensor copy = empty_like(like, like.scalar_type());
    return keep(torch::stable::copy_(copy, given)).template const_data_ptr<T>();
  }

  Periodic periodic(const char* argument, const Tensor& given) {
    const auto sizes = v_out.sizes();
    const auto strides = v_out.strides();
    check_parameter(kOp, argument, given, sizes, v_out);
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
      values = new_empty_strided(given, spread, strides, ScalarType::Float);
      torch::stable::copy_(values, once);
      repeat = repeat_over(values);
    }
    return {keep(values).const_data_ptr<float>(), repeat.inner, repeat.period};
  }

  Repeat repeat_over(const Tensor& parameter) const {
    return repeat_over_slice(v_out.dim(), v_out.sizes().data(), v_out.strides().data(),
                             parameter.dim(), parameter.sizes().data(),
                             parameter.strides().data());
  }

  void set_spikes(const Tensor& spikes) {
    arguments_.spikes_type = spikes_type(spikes.scalar_type());
    arguments_.spikes = spikes.mutable_data_ptr();
    arguments_.spikes_step = spikes.stride(0);
  }

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
  Run run(x, threshold, v, m, bias, residual,
          checked_rule(v_init, negative_threshold, strict, max_spikes, count_min, count_max));
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
  Run run(x, threshold, v, m, bias, residual,
          checked_rule(v_init, negative_threshold, strict, max_spikes, count_min, count_max));
  run.use_spikes(x, out);
  if (run.arguments().neurons > 0) launch(run.arguments(), x);
  return {run.v_out, run.m_out};
}

}  // namespace snm
