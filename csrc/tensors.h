// Checks of tensors and how to make them through torch's stable ABI, shared by all operators.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "arguments.h"

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

// Throws "<op>: <argument> must be <expected>, got <got>", which torch raises as RuntimeError.
template <class Expected, class Got>
void require(bool holds, const char* op, const char* argument, const Expected& expected,
             const Got& got) {
  if (holds) return;
  std::ostringstream text;
  text << op << ": " << argument << " must be " << expected << ", got " << got;
  throw std::runtime_error(text.str());
}

inline bool equal(IntHeaderOnlyArrayRef a, IntHeaderOnlyArrayRef b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

inline IntHeaderOnlyArrayRef slice(IntHeaderOnlyArrayRef values) {
  return IntHeaderOnlyArrayRef(values.data() + 1, values.size() - 1);
}

inline void check_same(const char* op, const char* argument, const Tensor& tensor,
                       IntHeaderOnlyArrayRef sizes, ScalarType type, const Tensor& x) {
  require(tensor.scalar_type() == type, op, argument, torch::headeronly::toString(type),
          torch::headeronly::toString(tensor.scalar_type()));
  require(equal(tensor.sizes(), sizes), op, argument, "of shape " + shown(sizes),
          shown(tensor.sizes()));
  require(tensor.device() == x.device(), op, argument, "on the drive's device",
          "another device");
}

// A parameter: of this type, float32 unless another is asked for, on the device of x, broadcastable
// to these sizes.
inline void check_parameter(const char* op, const char* argument, const Tensor& given,
                            IntHeaderOnlyArrayRef sizes, const Tensor& x,
                            ScalarType type = ScalarType::Float) {
  const int64_t missing = static_cast<int64_t>(sizes.size()) - given.dim();
  bool fits = missing >= 0;
  for (int64_t d = 0; fits && d < given.dim(); ++d) {
    fits = given.size(d) == 1 || given.size(d) == sizes[d + missing];
  }
  require(fits, op, argument, "broadcastable to " + shown(sizes), shown(given.sizes()));
  require(given.scalar_type() == type, op, argument,
          type == ScalarType::Float ? "float32" : "int32",
          torch::headeronly::toString(given.scalar_type()));
  require(given.device() == x.device(), op, argument, "on the drive's device", "another device");
}

// kNone for a type that no kernel takes.
inline DType dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Int: return DType::kInt32;
    case ScalarType::Char: return DType::kInt8;
    default: return DType::kNone;
  }
}

inline bool is_floating(DType type) {
  return type == DType::kFloat32 || type == DType::kFloat16 || type == DType::kBFloat16;
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

}  // namespace snm
