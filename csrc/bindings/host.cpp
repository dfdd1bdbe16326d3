// The Python module _host: the neuron on NumPy arrays and what is known of the build.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "../cpu/snm.h"
#include "build_info.h"

namespace py = pybind11;

namespace {

using snm::Arguments;
using snm::DType;

// Neuron-steps under which a thread isn't worth starting.
constexpr int64_t kGrain = 1 << 20;

DType dtype_of(const py::array& array) {
  const char kind = array.dtype().kind();
  const auto size = array.itemsize();
  if (kind == 'f' && size == 4) return DType::kFloat32;
  if (kind == 'f' && size == 2) return DType::kFloat16;
  if (kind == 'i' && size == 4) return DType::kInt32;
  if (kind == 'i' && size == 1) return DType::kInt8;
  throw std::invalid_argument("snm: no kernel takes an array of this dtype");
}

int64_t step_of(const py::array& array) { return array.strides(0) / array.itemsize(); }

void run_threads(const Arguments& a, int64_t threads) {
  const snm::CpuIsa& isa = snm::cpu_isa();
  const int64_t blocks = (a.neurons + snm::kBlock - 1) / snm::kBlock;
  const int64_t useful = std::max<int64_t>(1, a.neurons * a.time_steps / kGrain);
  const int64_t parts = std::min({threads, useful, blocks});
  const auto part = [&](int64_t index) {
    const int64_t begin = blocks * index / parts * snm::kBlock;
    const int64_t end = blocks * (index + 1) / parts * snm::kBlock;
    isa.run(a, begin, std::min(end, a.neurons));
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(parts));
  int64_t started = 1;
  try {
    for (; started < parts; ++started) others.emplace_back(part, started);
  } catch (const std::system_error&) {
    // No thread is to be had: this one does what is left.
  }
  part(0);
  for (int64_t index = started; index < parts; ++index) part(index);
  for (std::thread& other : others) other.join();
}

// Arrays are checked and laid out by snm_kernels/numpy.py: time slices are C-contiguous, and
// parameters are flat vectors that repeat as (n / inner) % period. Thresholds of int32 make
// all other numbers int32.
void run(const py::array& drive, const py::array& threshold, int64_t threshold_inner,
         const std::optional<py::array>& v_in, const std::optional<py::array>& m_in,
         const std::optional<py::array>& bias, int64_t bias_inner,
         const std::optional<py::array>& residual, float v_init,
         std::optional<float> negative_threshold, bool strict, int32_t max_spikes,
         int32_t count_min, int32_t count_max, std::optional<py::array> spikes, py::array v_out,
         py::array m_out, int64_t threads) {
  const float no_negative = std::numeric_limits<float>::quiet_NaN();
  Arguments a{};
  a.rule = {v_init,     negative_threshold.value_or(no_negative), strict, max_spikes, count_min,
            count_max};
  a.time_steps = drive.shape(0);
  a.neurons = v_out.size();
  a.drive_type = dtype_of(drive);
  a.integers = dtype_of(threshold) == DType::kInt32;
  a.drive = drive.data();
  a.drive_step = step_of(drive);
  if (residual.has_value()) {
    a.residual = residual->data();
    a.residual_step = step_of(*residual);
  }
  a.threshold = {threshold.data(), threshold_inner, threshold.size()};
  if (bias.has_value()) {
    a.bias = {bias->data(), bias_inner, bias->size()};
  }
  if (v_in.has_value()) a.v_in = v_in->data();
  if (m_in.has_value()) a.m_in = static_cast<const int32_t*>(m_in->data());
  a.v_out = v_out.mutable_data();
  a.m_out = static_cast<int32_t*>(m_out.mutable_data());
  a.spikes_type = DType::kNone;
  if (spikes.has_value()) {
    a.spikes_type = dtype_of(*spikes);
    a.spikes = spikes->mutable_data();
    a.spikes_step = step_of(*spikes);
  }
  if (a.neurons == 0) return;
  const py::gil_scoped_release release;
  run_threads(a, threads);
}

py::dict build_info() {
  py::dict info;
  info["version"] = SNM_VERSION;
  info["cxx_compiler"] = SNM_CXX_COMPILER;
  info["cuda_compiler"] = SNM_CUDA_COMPILER;
  info["cuda_version"] = SNM_CUDA_VERSION;
  info["cuda_architectures"] = SNM_CUDA_ARCHITECTURES;
  info["oldest_torch"] = SNM_OLDEST_TORCH;
  info["isa"] = snm::cpu_isa().name;
  info["matrix"] = snm::cpu_isa().matrix.name;
  return info;
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "The neuron on NumPy arrays, and how this copy was built.";
  module.def("run", &run);
  module.def("build_info", &build_info);
}
