// The neuron's loop on the CPU; compiled once per instruction set, into a namespace SNM_ISA.
#include <algorithm>
#include <type_traits>

#include "half.h"
#include "loops.h"
#include "snm.h"

namespace snm {
namespace {

struct Nothing {};

// State, parameters and rows of a tile stay in the cores' own caches while time runs over it.
constexpr int64_t kTile = 1024;
// Not a multiple of a page, so that a store to one row does not look like a load of the next.
constexpr int64_t kPadded = kTile + 48;

struct alignas(64) Tile {
  float v[kPadded];
  int32_t m[kPadded];
  float theta[kPadded];
  float upper[kPadded];
  float lower[kPadded];
  float bias[kPadded];
  float drive[kPadded];
  float residual[kPadded];
  float amplitude[kPadded];
};

// -0.0 is what can be added to any float without changing a bit of it.
constexpr float kNeutral = -0.0f;

void gather(const Periodic& parameter, int64_t begin, int64_t count, float* values) {
  const int64_t index = begin / parameter.inner;
  int64_t inside = begin - index * parameter.inner;
  int64_t position = index % parameter.period;
  for (int64_t j = 0; j < count; ++j) {
    values[j] = parameter.values[position];
    if (++inside == parameter.inner) {
      inside = 0;
      if (++position == parameter.period) position = 0;
    }
  }
}

void start(const Arguments& a, int64_t begin, int64_t count, Tile& tile) {
  gather(a.threshold, begin, count, tile.theta);
  if (a.bias.values != nullptr) {
    gather(a.bias, begin, count, tile.bias);
  } else {
    std::fill_n(tile.bias, count, kNeutral);
  }
  if (a.residual == nullptr) std::fill_n(tile.residual, count, kNeutral);
  for (int64_t j = 0; j < count; ++j) {
    const Thresholds own = thresholds(tile.theta[j], a.rule);
    tile.theta[j] = own.theta;
    tile.upper[j] = own.upper;
    tile.lower[j] = own.lower;
    tile.v[j] = a.v_in != nullptr ? a.v_in[begin + j] : starting_membrane(own.theta, a.rule);
    tile.m[j] = a.m_in != nullptr ? a.m_in[begin + j] : 0;
  }
}

// A row of the drive as floats: itself, or widened into `scratch`.
template <class In>
const float* widened(const In* row, int64_t count, float* scratch) {
  if constexpr (std::is_same_v<In, float>) {
    return row;
  } else {
  SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) scratch[j] = widen(row[j]);
    return scratch;
  }
}

template <class Out>
void narrow_row(const float* amplitude, int64_t count, Out* spikes) {
  SNM_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) spikes[j] = narrow<Out>(amplitude[j]);
}

// One time step of a tile. Amplitudes may overwrite the drive they came from.
template <bool kGraded, bool kStrict, class Emit>
SNM_INLINE void advance(Rule rule, int64_t count, const float* drive, const float* residual,
                        Tile& tile, const Emit& emit) {
  rule.strict = kStrict;
  SNM_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) {
    float c = drive[j];
    c = c + tile.bias[j];
    c = c + residual[j];
    const Thresholds own{tile.theta[j], tile.upper[j], tile.lower[j]};
    emit(j, step<kGraded>(c, own, tile.v[j], tile.m[j], rule));
  }
}

template <class In, class Out, bool kGraded, bool kStrict>
void run(const Arguments& a, int64_t begin, int64_t end) {
  Tile tile;
  for (int64_t first = begin; first < end; first += kTile) {
    const int64_t count = std::min(end - first, kTile);
    start(a, first, count, tile);
    for (int64_t t = 0; t < a.time_steps; ++t) {
      const In* row = static_cast<const In*>(a.drive) + t * a.drive_step + first;
      if (t + 1 < a.time_steps) prefetch<0>(row + a.drive_step, count);
      const float* drive = widened(row, count, tile.drive);
      const float* residual = tile.residual;
      if (a.residual != nullptr) {
        const In* added = static_cast<const In*>(a.residual) + t * a.residual_step + first;
        residual = widened(added, count, tile.residual);
      }
      if constexpr (std::is_same_v<Out, Nothing>) {
        advance<kGraded, kStrict>(a.rule, count, drive, residual, tile, [](int64_t, Step) {});
      } else {
        Out* spikes = static_cast<Out*>(a.spikes) + t * a.spikes_step + first;
        if (t + 1 < a.time_steps) prefetch<1>(spikes + a.spikes_step, count);
        if constexpr (std::is_same_v<Out, int8_t>) {
          advance<kGraded, kStrict>(a.rule, count, drive, residual, tile, [=](int64_t j, Step step) {
            spikes[j] = static_cast<int8_t>(step.s);
          });
        } else {
          float* amplitude = tile.amplitude;
          if constexpr (std::is_same_v<Out, float>) amplitude = spikes;
          advance<kGraded, kStrict>(a.rule, count, drive, residual, tile, [=](int64_t j, Step step) {
            amplitude[j] = step.amplitude;
          });
          if constexpr (!std::is_same_v<Out, float>) narrow_row(amplitude, count, spikes);
        }
      }
    }
    std::copy_n(tile.v, count, a.v_out + first);
    std::copy_n(tile.m, count, a.m_out + first);
  }
}

template <class In, class Out>
void run_rule(const Arguments& a, int64_t begin, int64_t end) {
  const bool graded = a.rule.max_spikes > 1;
  if (graded && a.rule.strict) return run<In, Out, true, true>(a, begin, end);
  if (graded) return run<In, Out, true, false>(a, begin, end);
  if (a.rule.strict) return run<In, Out, false, true>(a, begin, end);
  run<In, Out, false, false>(a, begin, end);
}

template <class In>
void run_spikes(const Arguments& a, int64_t begin, int64_t end) {
  switch (a.spikes_type) {
    case DType::kFloat32: return run_rule<In, float>(a, begin, end);
    case DType::kFloat16: return run_rule<In, Half>(a, begin, end);
    case DType::kBFloat16: return run_rule<In, BFloat16>(a, begin, end);
    case DType::kInt8: return run_rule<In, int8_t>(a, begin, end);
    default: return run_rule<In, Nothing>(a, begin, end);
  }
}

}  // namespace

namespace SNM_ISA {

void run_neurons(const Arguments& a, int64_t begin, int64_t end) {
  switch (a.drive_type) {
    case DType::kFloat32: return run_spikes<float>(a, begin, end);
    case DType::kFloat16: return run_spikes<Half>(a, begin, end);
    case DType::kBFloat16: return run_spikes<BFloat16>(a, begin, end);
    default: return run_spikes<int32_t>(a, begin, end);
  }
}

}  // namespace SNM_ISA
}  // namespace snm
