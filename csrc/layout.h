// How a broadcast parameter repeats over a time slice in memory order. Knows no framework.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace snm {

struct Repeat {
  bool regular;  // false: no such pattern, the parameter has to be spread out first
  int64_t inner;
  int64_t period;
};

// Dimensions of size over 1, outermost in memory first.
inline std::vector<int64_t> memory_order(int64_t dims, const int64_t* sizes,
                                         const int64_t* strides) {
  std::vector<int64_t> order;
  for (int64_t d = 0; d < dims; ++d) {
    if (sizes[d] > 1) order.push_back(d);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return strides[a] > strides[b]; });
  return order;
}

// The step of a parameter along dimension d of the slice; 0 where it is broadcast.
inline int64_t parameter_stride(int64_t dims, int64_t parameter_dims,
                                const int64_t* parameter_sizes,
                                const int64_t* parameter_strides, int64_t d) {
  const int64_t own = d - (dims - parameter_dims);
  return own < 0 || parameter_sizes[own] == 1 ? 0 : parameter_strides[own];
}

// Finds inner and period such that neuron n of a dense slice has value (n / inner) % period.
inline Repeat repeat_over_slice(int64_t dims, const int64_t* sizes, const int64_t* strides,
                                int64_t parameter_dims, const int64_t* parameter_sizes,
                                const int64_t* parameter_strides) {
  const std::vector<int64_t> order = memory_order(dims, sizes, strides);
  Repeat repeat{true, 1, 1};
  auto d = order.rbegin();
  const auto stride_at = [&](int64_t dim) {
    return parameter_stride(dims, parameter_dims, parameter_sizes, parameter_strides, dim);
  };
  for (; d != order.rend() && stride_at(*d) == 0; ++d) repeat.inner *= sizes[*d];
  for (; d != order.rend() && stride_at(*d) == repeat.period; ++d) repeat.period *= sizes[*d];
  for (; d != order.rend(); ++d) repeat.regular = repeat.regular && stride_at(*d) == 0;
  return repeat;
}

// Sizes of the smallest block, aligned with the slice's memory, that holds every value once:
// the outermost dimensions over which the parameter is broadcast are left out.
inline std::vector<int64_t> spread_sizes(int64_t dims, const int64_t* sizes,
                                         const int64_t* strides, int64_t parameter_dims,
                                         const int64_t* parameter_sizes,
                                         const int64_t* parameter_strides) {
  std::vector<int64_t> spread(sizes, sizes + dims);
  for (int64_t d : memory_order(dims, sizes, strides)) {
    if (parameter_stride(dims, parameter_dims, parameter_sizes, parameter_strides, d) != 0) break;
    spread[d] = 1;
  }
  return spread;
}

}  // namespace snm
