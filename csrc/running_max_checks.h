// Checks of a running maximum's tensors and their translation to RunningMaxArguments, for all
// devices.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "running_max_rule.h"
#include "tensors.h"

namespace snm {

constexpr const char* kPool = "running_max_pool";
constexpr const char* kAdaptivePool = "adaptive_running_max_pool";

// The windows of torch.nn.functional.max_pool along one dimension.
inline Windows max_pool_windows(const char* op, int64_t in, int64_t kernel, int64_t stride,
                                int64_t padding, int64_t dilation, bool ceil_mode) {
  constexpr int64_t most = INT32_MAX;
  require(kernel >= 1 && kernel <= most, op, "kernel_size", "at least 1", kernel);
  require(stride >= 1 && stride <= most, op, "stride", "at least 1", stride);
  require(dilation >= 1 && dilation <= most / kernel, op, "dilation", "at least 1", dilation);
  const int64_t reach = dilation * (kernel - 1);
  require(padding >= 0 && padding <= (reach + 1) / 2, op, "padding",
          "0 to half of the effective kernel size", padding);
  const int64_t room = in + 2 * padding - reach - 1;
  require(room >= 0 || (ceil_mode && room + stride - 1 >= 0), op, "x",
          "as large as a window with its padding",
          "size " + std::to_string(in) + " for " + std::to_string(reach + 1));
  int64_t out = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (ceil_mode && (out - 1) * stride >= in + padding) --out;
  const Windows windows{in, out, kernel, stride, padding, dilation, false};
  for (int64_t o = 0; dilation > in && o * stride < padding; ++o) {
    require(taps_of(windows, o).count > 0, op, "x", "of a size with an input in every window",
            "size " + std::to_string(in) + " with none in window " + std::to_string(o));
  }
  return windows;
}

// Those of adaptive_max_pool; windows of one size are ordinary ones.
inline Windows adaptive_windows(const char* op, int64_t in, int64_t out) {
  require(out >= 1, op, "output_size", "at least 1", out);
  if (in % out == 0) return {in, out, in / out, in / out, 0, 1, false};
  return {in, out, in / out + 2, 1, 0, 1, true};
}

inline Windows no_windows() { return {1, 1, 1, 1, 0, 1, false}; }

// [T, B, C, *spatial]: their strides, time first, for a dense contiguous or channels_last slice.
inline std::vector<int64_t> dense_strides(IntHeaderOnlyArrayRef sizes, bool channels_last) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  const auto next = [&](size_t d) {
    strides[d] = step;
    step *= sizes[d] > 0 ? sizes[d] : 1;
  };
  if (channels_last) next(2);
  for (size_t d = sizes.size() - 1; d > 2; --d) next(d);
  if (!channels_last) next(2);
  next(1);
  next(0);
  return strides;
}

// The tensors of one run, kept alive while its kernel reads them, and the kernel's arguments.
class RunningMaxRun {
 public:
  RunningMaxRun(const char* op, const Tensor& x, const std::optional<Tensor>& threshold,
          const std::optional<Tensor>& total, const std::vector<Windows>& windows,
          ScalarType sent_type) {
    const size_t spatial = windows.size();
    RunningMaxArguments& a = arguments_;
    a.time_steps = x.size(0);
    a.batch = x.size(1);
    a.channels = x.size(2);
    std::fill_n(a.windows, 3, no_windows());
    std::copy(windows.begin(), windows.end(), a.windows + (3 - spatial));

    a.input_type = dtype_of(x.scalar_type());
    const bool counted = a.input_type == DType::kInt8;
    require(counted || is_floating(a.input_type), op, "x", "int8, float32, float16 or bfloat16",
            torch::headeronly::toString(x.scalar_type()));
    require(counted == threshold.has_value(), op, "threshold",
            counted ? "given for int8 x" : "None for floating x",
            counted ? "None" : "a tensor");
    if (counted) read_threshold(op, *threshold, x, spatial);

    const auto contiguous = dense_strides(x.sizes(), false);
    a.channels_last = !same_places(slice(x.sizes()), slice(x.strides()), slice(contiguous)) &&
                      same_places(slice(x.sizes()), slice(x.strides()),
                                  slice(dense_strides(x.sizes(), true)));
    input_ = a.channels_last ? x : aligned(x, contiguous);
    a.input = input_.const_data_ptr();
    a.input_step = input_.stride(0);

    const ScalarType total_type = counted ? ScalarType::Int : ScalarType::Float;
    const std::vector<int64_t> dense = dense_strides(x.sizes(), a.channels_last);
    total_out = new_empty_strided(x, slice(x.sizes()), slice(dense), total_type);
    a.total_out = total_out.mutable_data_ptr();
    if (total.has_value()) {
      check_same(op, "total", *total, slice(x.sizes()), total_type, x);
      total_in_ = *total;
      if (!same_places(total->sizes(), total->strides(), slice(dense))) {
        total_in_ = new_empty_strided(x, slice(x.sizes()), slice(dense), total_type);
        torch::stable::copy_(total_in_, *total);
      }
      a.total_in = total_in_.const_data_ptr();
    }

    a.sent_type = dtype_of(sent_type);
    require(is_floating(a.sent_type) || (counted && a.shared && a.sent_type == DType::kInt8), op,
            "sent",
            a.shared ? "float32, float16, bfloat16 or int8" : "float32, float16 or bfloat16",
            torch::headeronly::toString(sent_type));
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    for (size_t d = 0; d < spatial; ++d) sizes[3 + d] = windows[d].out;
    const std::vector<int64_t> strides = dense_strides(sizes, a.channels_last);
    sent = new_empty_strided(x, sizes, strides, sent_type);
    a.sent = sent.mutable_data_ptr();
    a.sent_step = strides[0];
  }

  const RunningMaxArguments& arguments() const { return arguments_; }

  Tensor sent;
  Tensor total_out;

 private:
  void read_threshold(const char* op, const Tensor& given, const Tensor& x, size_t spatial) {
    const IntHeaderOnlyArrayRef sizes(x.sizes().data() + 2, x.sizes().size() - 2);
    check_parameter(op, "threshold", given, sizes, x);
    threshold_ = given;
    arguments_.threshold.values = given.const_data_ptr<float>();
    arguments_.shared = true;
    const int64_t missing = static_cast<int64_t>(1 + spatial) - given.dim();
    for (int64_t own = 0; own < given.dim(); ++own) {
      if (given.size(own) == 1) continue;
      const int64_t d = own + missing;
      if (d == 0) {
        arguments_.threshold.channel_step = given.stride(own);
      } else {
        arguments_.threshold.step[2 - static_cast<int64_t>(spatial) + d] = given.stride(own);
        arguments_.shared = false;
      }
    }
  }

  // x itself where its slices have these strides, else a copy that has them.
  static Tensor aligned(const Tensor& x, const std::vector<int64_t>& strides) {
    if (same_places(slice(x.sizes()), slice(x.strides()), slice(strides))) return x;
    Tensor copy = new_empty_strided(x, x.sizes(), strides, x.scalar_type());
    return torch::stable::copy_(copy, x);
  }

  RunningMaxArguments arguments_{};
  Tensor input_;
  Tensor threshold_;
  Tensor total_in_;
};

// The number of spatial dimensions of x.
inline size_t spatial_dims(const char* op, const Tensor& x) {
  const auto sizes = x.sizes();
  bool holds = sizes.size() >= 4 && sizes.size() <= 6 && sizes[0] >= 1;
  for (size_t d = 3; holds && d < sizes.size(); ++d) holds = sizes[d] >= 1;
  require(holds, op, "x", "[T, B, C, *spatial] with T >= 1 and 1 to 3 spatial sizes >= 1",
          shown(sizes));
  return sizes.size() - 3;
}

inline void check_length(const char* op, const char* argument, const std::vector<int64_t>& given,
                         size_t spatial) {
  require(given.size() == spatial, op, argument,
          "one integer per spatial dimension (" + std::to_string(spatial) + ")", shown(given));
}

using PoolLaunch = void (*)(const RunningMaxArguments& arguments, const Tensor& x);

template <PoolLaunch launch>
std::tuple<Tensor, Tensor> pool(const char* op, const Tensor& x,
                                const std::optional<Tensor>& threshold,
                                const std::optional<Tensor>& total,
                                const std::vector<Windows>& windows, ScalarType sent_type) {
  const RunningMaxRun run(op, x, threshold, total, windows, sent_type);
  if (run.total_out.numel() > 0) launch(run.arguments(), x);
  return {run.sent, run.total_out};
}

template <PoolLaunch launch>
std::tuple<Tensor, Tensor> running_max_pool_op(
    Tensor x, std::optional<Tensor> threshold, std::optional<Tensor> total,
    std::vector<int64_t> kernel_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
    std::vector<int64_t> dilation, bool ceil_mode, ScalarType sent_type) {
  const size_t spatial = spatial_dims(kPool, x);
  check_length(kPool, "kernel_size", kernel_size, spatial);
  check_length(kPool, "stride", stride, spatial);
  check_length(kPool, "padding", padding, spatial);
  check_length(kPool, "dilation", dilation, spatial);
  std::vector<Windows> windows;
  for (size_t d = 0; d < spatial; ++d) {
    windows.push_back(max_pool_windows(kPool, x.size(3 + d), kernel_size[d], stride[d],
                                       padding[d], dilation[d], ceil_mode));
  }
  return pool<launch>(kPool, x, threshold, total, windows, sent_type);
}

template <PoolLaunch launch>
std::tuple<Tensor, Tensor> adaptive_running_max_pool_op(
    Tensor x, std::optional<Tensor> threshold, std::optional<Tensor> total,
    std::vector<int64_t> output_size, ScalarType sent_type) {
  const size_t spatial = spatial_dims(kAdaptivePool, x);
  check_length(kAdaptivePool, "output_size", output_size, spatial);
  std::vector<Windows> windows;
  for (size_t d = 0; d < spatial; ++d) {
    windows.push_back(adaptive_windows(kAdaptivePool, x.size(3 + d), output_size[d]));
  }
  return pool<launch>(kAdaptivePool, x, threshold, total, windows, sent_type);
}

}  // namespace snm
