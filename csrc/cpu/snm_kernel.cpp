// The neuron's loop on the CPU; compiled once per instruction set, into a namespace SNM_ISA.
#include <type_traits>

#include "half.h"
#include "snm.h"

namespace snm {
namespace {

struct Nothing {};

// State, thresholds and bias of a tile stay in the first-level cache while time runs over it.
constexpr int64_t kTile = 1024;

struct alignas(64) Tile {
  float v[kTile];
  int32_t m[kTile];
  float theta[kTile];
  float lower[kTile];
  float bias[kTile];
};

// -0.0 is what can be added to any float without changing a bit of it.
constexpr float kNeutral = -0.0f;

template <class In>
struct alignas(64) NeutralRow {
  In values[kTile];
  NeutralRow() {
    for (In& value : values) {
      if constexpr (std::is_same_v<In, float>) {
        value = kNeutral;
      } else if constexpr (std::is_same_v<In, int32_t>) {
        value = 0;
      } else {
        value.bits = 0x8000u;
      }
    }
  }
};

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
    for (int64_t j = 0; j < count; ++j) tile.bias[j] = kNeutral;
  }
  for (int64_t j = 0; j < count; ++j) {
    const Thresholds own = thresholds(tile.theta[j], a.rule);
    tile.theta[j] = own.theta;
    tile.lower[j] = own.lower;
    tile.v[j] = a.v_in != nullptr ? a.v_in[begin + j] : starting_membrane(own.theta, a.rule);
    tile.m[j] = a.m_in != nullptr ? a.m_in[begin + j] : 0;
  }
}

template <class Out>
SNM_INLINE void emit(const Step& step, Out* spikes, int64_t j) {
  if constexpr (std::is_same_v<Out, float>) spikes[j] = step.amplitude;
  if constexpr (std::is_same_v<Out, Half>) spikes[j] = narrow_half(step.amplitude);
  if constexpr (std::is_same_v<Out, BFloat16>) spikes[j] = narrow_bfloat16(step.amplitude);
  if constexpr (std::is_same_v<Out, int8_t>) spikes[j] = static_cast<int8_t>(step.s);
}

// One time step of a tile. Spikes may overwrite the drive they came from.
template <class In, class Out, bool kGraded>
void advance(const Rule rule, int64_t count, const In* drive, const In* residual, Out* spikes,
             Tile& tile) {
#pragma GCC ivdep
  for (int64_t j = 0; j < count; ++j) {
    float c = widen(drive[j]);
    c = c + tile.bias[j];
    c = c + widen(residual[j]);
    emit(step<kGraded>(c, tile.theta[j], tile.lower[j], tile.v[j], tile.m[j], rule), spikes, j);
  }
}

template <class In, class Out, bool kGraded>
void run(const Arguments& a, int64_t begin, int64_t end) {
  static const NeutralRow<In> neutral;
  Tile tile;
  for (int64_t first = begin; first < end; first += kTile) {
    const int64_t count = end - first < kTile ? end - first : kTile;
    start(a, first, count, tile);
    const In* drive = static_cast<const In*>(a.drive) + first;
    const bool added = a.residual != nullptr;
    const In* residual = added ? static_cast<const In*>(a.residual) + first : neutral.values;
    const int64_t residual_step = added ? a.residual_step : 0;
    Out* spikes = static_cast<Out*>(a.spikes);
    if constexpr (!std::is_same_v<Out, Nothing>) spikes += first;
    for (int64_t t = 0; t < a.time_steps; ++t) {
      advance<In, Out, kGraded>(a.rule, count, drive, residual, spikes, tile);
      drive += a.drive_step;
      residual += residual_step;
      if constexpr (!std::is_same_v<Out, Nothing>) spikes += a.spikes_step;
    }
    for (int64_t j = 0; j < count; ++j) {
      a.v_out[first + j] = tile.v[j];
      a.m_out[first + j] = tile.m[j];
    }
  }
}

template <class In, class Out>
void run_rule(const Arguments& a, int64_t begin, int64_t end) {
  if (a.rule.max_spikes > 1) {
    run<In, Out, true>(a, begin, end);
  } else {
    run<In, Out, false>(a, begin, end);
  }
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
