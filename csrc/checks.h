// Checks of an operator's tensors and their translation to Arguments, shared by all devices.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "layout.h"

namespace snm {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shown(IntHeaderOnlyArrayRef values) {
  std::ostringstream text;
  text << '[';
  for (size_t i = 0; i < values.size(); ++i) text << (i == 0 ? "" : ", ") << values[i];
  text << ']';
  return text.str();
}

// Throws "snm: <argument> must be <expected>, got <got>", which torch raises as RuntimeError.
template <class Expected, class Got>
void require(bool holds, const char* argument, const Expected& expected, const Got& got) {
  if (holds) return;
  std::ostringstream text;
  text << "snm: " << argument << " must be " << expected << ", got " << got;
  throw std::runtime_error(text.str());
}

inline bool equal(IntHeaderOnlyArrayRef a, IntHeaderOnlyArrayRef b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

inline IntHeaderOnlyArrayRef slice(IntHeaderOnlyArrayRef values) {
  return IntHeaderOnlyArrayRef(values.data() + 1, values.size() - 1);
}

inline void check_same(const char* argument, const Tensor& tensor, IntHeaderOnlyArrayRef sizes,
                       ScalarType type, const Tensor& x) {
  require(tensor.scalar_type() == type, argument, torch::headeronly::toString(type),
          torch::headeronly::toString(tensor.scalar_type()));
  require(equal(tensor.sizes(), sizes), argument, "of shape " + shown(sizes),
          shown(tensor.sizes()));
  require(tensor.device() == x.device(), argument, "on the drive's device", "another device");
}

inline DType drive_type(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Int: return DType::kInt32;
    default:
      require(false, "x", "float32, float16, bfloat16 or int32",
              torch::headeronly::toString(type));
      return DType::kNone;
  }
}

inline DType spikes_type(ScalarType type) {
  if (type == ScalarType::Char) return DType::kInt8;
  const bool floating = type == ScalarType::Float || type == ScalarType::Half ||
                        type == ScalarType::BFloat16;
  require(floating, "spikes", "float32, float16, bfloat16 or int8",
          torch::headeronly::toString(type));
  return drive_type(type);
}

inline Rule checked_rule(double v_init, std::optional<double> negative_threshold, bool strict,
                         int64_t max_spikes, int64_t count_min, int64_t count_max) {
  constexpr int64_t least = std::numeric_limits<int32_t>::min();
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  require(max_spikes >= 1 && max_spikes <= 127, "max_spikes", "1 to 127", max_spikes);
  require(count_min >= least && count_min <= 0, "count_min", "an int32 <= 0", count_min);
  require(count_max <= most && count_max >= 0, "count_max", "an int32 >= 0", count_max);
  const double ratio = negative_threshold.value_or(std::numeric_limits<double>::quiet_NaN());
  return {static_cast<float>(v_init),      static_cast<float>(ratio),
          strict,                          static_cast<int32_t>(max_spikes),
          static_cast<int32_t>(count_min), static_cast<int32_t>(count_max)};
}

inline Tensor empty_like(const Tensor& self, ScalarType type) {
  std::array<StableIValue, 6> stack{
      torch::stable::detail::from(self),
      torch::stable::detail::from(std::optional<ScalarType>(type)),
      torch::stable::detail::from(std::nullopt),
      torch::stable::detail::from(std::nullopt),
      torch::stable::detail::from(std::nullopt),
      torch::stable::detail::from(std::nullopt)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

inline Tensor new_empty_strided(const Tensor& self, IntHeaderOnlyArrayRef sizes,
                                IntHeaderOnlyArrayRef strides, ScalarType type) {
  std::array<StableIValue, 7> stack{
      torch::stable::detail::from(self),
      torch::stable::detail::from(sizes),
      torch::stable::detail::from(strides),
      torch::stable::detail::from(std::optional<ScalarType>(type)),
      torch::stable::detail::from(std::nullopt),
      torch::stable::detail::from(std::nullopt),
      torch::stable::detail::from(std::nullopt)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::new_empty_strided", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Whether two layouts put every element in the same place; dimensions of size 1 don't count.
inline bool same_places(IntHeaderOnlyArrayRef sizes, IntHeaderOnlyArrayRef a,
                        IntHeaderOnlyArrayRef b) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] > 1 && a[d] != b[d]) return false;
  }
  return true;
}

// The tensors of one run, kept alive while its kernel reads them, and the kernel's arguments.
class Run {
 public:
  Run(const Tensor& x, const Tensor& threshold, const std::optional<Tensor>& v,
      const std::optional<Tensor>& m, const std::optional<Tensor>& bias,
      const std::optional<Tensor>& residual, const Rule& rule) {
    require(x.dim() >= 1 && x.size(0) >= 1, "x", "[T, *shape] with T >= 1", shown(x.sizes()));
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
      check_same("residual", *residual, x.sizes(), x.scalar_type(), x);
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
    check_same("out", out, x.sizes(), out.scalar_type(), x);
    const bool adjacent = out.size(0) == 1 || out.stride(0) >= arguments_.neurons;
    require(adjacent && same_places(v_out.sizes(), slice(out.strides()), v_out.strides()), "out",
            "of strides " + shown(dense_strides()), shown(out.strides()));
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
    check_same(argument, given, like.sizes(), like.scalar_type(), like);
    if (same_places(like.sizes(), given.strides(), like.strides())) {
      return keep(given).template const_data_ptr<T>();
    }
    Tensor copy = empty_like(like, like.scalar_type());
    return keep(torch::stable::copy_(copy, given)).template const_data_ptr<T>();
  }

  Periodic periodic(const char* argument, const Tensor& given) {
    const auto sizes = v_out.sizes();
    const auto strides = v_out.strides();
    const int64_t missing = v_out.dim() - given.dim();
    bool fits = missing >= 0;
    for (int64_t d = 0; fits && d < given.dim(); ++d) {
      fits = given.size(d) == 1 || given.size(d) == sizes[d + missing];
    }
    require(fits, argument, "broadcastable to " + shown(sizes), shown(given.sizes()));
    require(given.scalar_type() == ScalarType::Float, argument, "float32",
            torch::headeronly::toString(given.scalar_type()));
    require(given.device() == v_out.device(), argument, "on the drive's device",
            "another device");
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
