// The neuron's loop on the CPU; compiled once per instruction set, into a namespace SNM_ISA.
#include <algorithm>
#include <type_traits>

#include "half.h"
#include "loops.h"
#include "snm.h"
#include "stream.h"

namespace snm {
namespace {

// State, parameters and rows of a tile stay in the first-level cache while time runs over it.
constexpr int64_t kTile = 512;
// Time steps for which the state stays in registers.
constexpr int kMostSteps = 4;
// From this many bytes of spikes on, whoever reads them next finds them sooner in memory than in
// the cache: they are streamed.
constexpr int64_t kStreamedBytes = 32 << 20;
// What a second-level cache holds needs no prefetching.
constexpr int64_t kCachedBytes = 1 << 20;

// What becomes of a step's spikes, unless they are sent as float or int8_t.
struct Nothing {};
// In 16 bits, from a rule that sends at most one spike: a sign and the threshold, narrowed once.
struct Ternary {
  uint16_t bits;
};

struct alignas(kCacheLine) Tile {
  float v[kTile];
  int32_t m[kTile];
  float theta[kTile];
  float upper[kTile];
  float lower[kTile];
  uint16_t narrow_theta[kTile];
  float bias[kTile];
  float drive[kMostSteps * kTile];     // widened
  float residual[kMostSteps * kTile];  // widened, or one row of zeros
  float spikes[kMostSteps * kTile];    // before they are narrowed or streamed
};

// The same neurons at several time steps.
template <class T>
struct Rows {
  T* first;
  int64_t step;
  SNM_INLINE T* at(int64_t t) const { return first + t * step; }
};

// The rows that come next, which are fetched block by block while these are computed.
class Ahead {
 public:
  explicit Ahead(int64_t steps) : steps_(steps) {}

  template <class T>
  SNM_INLINE void add(const Rows<T>& rows) {
    next_[tensors_] = reinterpret_cast<const char*>(rows.first);
    size_[tensors_] = sizeof(T);
    step_[tensors_++] = rows.step * static_cast<int64_t>(sizeof(T));
  }

  SNM_INLINE void fetch(int64_t begin) const {
    for (int i = 0; steps_ > 0 && i < tensors_; ++i) {
      for (int64_t t = 0; t < steps_; ++t) {
        prefetch<0>(next_[i] + t * step_[i] + begin * size_[i], kBlock * size_[i]);
      }
    }
  }

 private:
  int64_t steps_;
  int tensors_ = 0;
  const char* next_[3];
  int64_t step_[3];  // in bytes, as size_
  int64_t size_[3];
};

// -0.0 is what can be added to any float without changing a bit of it.
constexpr float kNeutral = -0.0f;

// Neurons with one value, and values that follow each other, are taken at once.
void gather(const Periodic& parameter, int64_t begin, int64_t count, float* values) {
  const int64_t index = begin / parameter.inner;
  int64_t inside = begin - index * parameter.inner;
  int64_t position = index % parameter.period;
  while (count > 0) {
    const float* const from = parameter.values + position;
    int64_t taken = count;
    if (parameter.period == 1) {
      std::fill_n(values, taken, *from);
    } else if (parameter.inner == 1) {
      taken = std::min(count, parameter.period - position);
      std::copy_n(from, taken, values);
      position = 0;
    } else {
      taken = std::min(count, parameter.inner - inside);
      std::fill_n(values, taken, *from);
      inside = 0;
      if (++position == parameter.period) position = 0;
    }
    values += taken;
    count -= taken;
  }
}

bool adds(const Arguments& a) { return a.bias.values != nullptr || a.residual != nullptr; }

template <class Out>
void narrow_thresholds(int64_t count, Tile& tile) {
  if constexpr (std::is_same_v<Out, Half> || std::is_same_v<Out, BFloat16>) {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) tile.narrow_theta[j] = narrow<Out>(tile.theta[j]).bits;
  }
}

void start(const Arguments& a, int64_t begin, int64_t count, Tile& tile) {
  const Rule rule = a.rule;
  gather(a.threshold, begin, count, tile.theta);
  SNM_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) {
    const Thresholds own = thresholds(tile.theta[j], rule);
    tile.theta[j] = own.theta;
    tile.upper[j] = own.upper;
    tile.lower[j] = own.lower;
  }
  if (a.v_in != nullptr) {
    std::copy_n(a.v_in + begin, count, tile.v);
  } else {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) tile.v[j] = starting_membrane(tile.theta[j], rule);
  }
  if (a.m_in != nullptr) {
    std::copy_n(a.m_in + begin, count, tile.m);
  } else {
    std::fill_n(tile.m, count, 0);
  }
  if (!adds(a)) return;
  if (a.bias.values != nullptr) {
    gather(a.bias, begin, count, tile.bias);
  } else {
    std::fill_n(tile.bias, count, kNeutral);
  }
  if (a.residual == nullptr) std::fill_n(tile.residual, count, kNeutral);
}

// The drive of one neuron at time steps t to kSteps.
template <int kSteps, int t, bool kAdds, class In>
SNM_INLINE void read_drive(int64_t j, const Rows<const In>& drive,
                           const Rows<const float>& residual, float bias, float* c) {
  if constexpr (t < kSteps) {
    c[t] = widen(drive.at(t)[j]);
    if constexpr (kAdds) {
      c[t] = c[t] + bias;
      c[t] = c[t] + residual.at(t)[j];
    }
    read_drive<kSteps, t + 1, kAdds>(j, drive, residual, bias, c);
  }
}

// Time steps t to kSteps of one neuron, whose spikes go to element j of their rows.
template <int kSteps, int t, bool kGraded, class Out>
SNM_INLINE void advance_neuron(int64_t j, const float* c, const Rows<Out>& spikes,
                               uint16_t narrow_theta, const Thresholds& own, float& v, int32_t& m,
                               const Rule& rule) {
  if constexpr (t < kSteps) {
    const Step sent = step<kGraded>(c[t], own, v, m, rule);
    if constexpr (std::is_same_v<Out, float>) {
      spikes.at(t)[j] = sent.amplitude;
    } else if constexpr (std::is_same_v<Out, int8_t>) {
      spikes.at(t)[j] = static_cast<int8_t>(sent.s);
    } else if constexpr (std::is_same_v<Out, Ternary>) {
      const int16_t s = static_cast<int16_t>(sent.s);
      spikes.at(t)[j].bits = static_cast<uint16_t>((narrow_theta * (s & 1)) | (s & 0x8000));
    }
    advance_neuron<kSteps, t + 1, kGraded>(j, c, spikes, narrow_theta, own, v, m, rule);
  }
}

// kSteps time steps of the neurons [begin, end) of a tile.
template <int kSteps, bool kAdds, bool kGraded, bool kStrict, class In, class Out>
SNM_INLINE void advance_block(Rule rule, int64_t begin, int64_t end, Rows<const In> drive,
                              Rows<const float> residual, Rows<Out> spikes, Tile& tile) {
  rule.strict = kStrict;
  SNM_INDEPENDENT
  for (int64_t j = begin; j < end; ++j) {
    const Thresholds own{tile.theta[j], tile.upper[j], tile.lower[j]};
    float v = tile.v[j];
    int32_t m = tile.m[j];
    // All of the drive first: rows often lie whole pages apart, and a store to one then looks like
    // a load of another.
    float c[kSteps];
    read_drive<kSteps, 0, kAdds>(j, drive, residual, kAdds ? tile.bias[j] : 0.0f, c);
    advance_neuron<kSteps, 0, kGraded>(j, c, spikes, tile.narrow_theta[j], own, v, m, rule);
    tile.v[j] = v;
    tile.m[j] = m;
  }
}

// kSteps time steps of a tile. Spikes may overwrite the drive they came from.
template <int kSteps, bool kAdds, bool kGraded, bool kStrict, class In, class Out>
void advance_tile(const Rule& rule, int64_t count, Rows<const In> drive,
                  Rows<const float> residual, Rows<Out> spikes, const Ahead& ahead, Tile& tile) {
  int64_t begin = 0;
  // Full blocks have a length that the compiler knows.
  for (; begin + kBlock <= count; begin += kBlock) {
    ahead.fetch(begin);
    advance_block<kSteps, kAdds, kGraded, kStrict>(rule, begin, begin + kBlock, drive, residual,
                                                   spikes, tile);
  }
  advance_block<kSteps, kAdds, kGraded, kStrict>(rule, begin, count, drive, residual, spikes,
                                                 tile);
}

// All time steps of neurons [begin, end).
template <class In, class Out, bool kGraded, bool kStrict>
class Run {
 public:
  Run(const Arguments& a, int64_t begin, int64_t end) : a_(a), begin_(begin), end_(end) {
    in_place_ = a.spikes == a.drive || a.spikes == a.residual;
    streams_ = kCanStream && !in_place_ && a.time_steps * a.neurons * kOutSize >= kStreamedBytes;
    prefetches_ = a.time_steps * (end - begin) * (kInSize + kOutSize) > kCachedBytes;
  }

  void run() {
    for (first_ = begin_; first_ < end_; first_ += kTile) {
      count_ = std::min(end_ - first_, kTile);
      start(a_, first_, count_, tile_);
      if constexpr (kTernary) narrow_thresholds<Out>(count_, tile_);
      int64_t t = 0;
      for (; t + kSteps <= a_.time_steps; t += kSteps) advance<kSteps>(t);
      if constexpr (kSteps > 1) {
        for (; t < a_.time_steps; ++t) advance<1>(t);
      }
      std::copy_n(tile_.v, count_, a_.v_out + first_);
      std::copy_n(tile_.m, count_, a_.m_out + first_);
    }
    if (streams_) finish_streams();
  }

 private:
  static constexpr bool kSends = !std::is_same_v<Out, Nothing>;
  static constexpr bool kHalf = std::is_same_v<Out, Half> || std::is_same_v<Out, BFloat16>;
  static constexpr bool kTernary = kHalf && !kGraded;
  static constexpr bool kNarrows = kHalf && kGraded;
  // Widening a bfloat16 is a shift, which the loop itself can do.
  static constexpr bool kWidens = std::is_same_v<In, Half> || std::is_same_v<In, int32_t>;
  static constexpr int64_t kInSize = sizeof(In);
  static constexpr int64_t kOutSize = kSends ? sizeof(Out) : 0;
  // Where rows of spikes are as long as those of the drive, more steps at once hide their stores.
  static constexpr int kSteps = kGraded ? 1 : std::is_same_v<Out, float> ? kMostSteps : 2;

  using Drive = std::conditional_t<kWidens, float, In>;
  using Spikes = std::conditional_t<kTernary, Ternary, std::conditional_t<kHalf, float, Out>>;

  // kCount time steps of the tile from t on.
  template <int kCount>
  void advance(int64_t t) {
    const Rows<const In> from = drive_rows(first_, t);
    const Rows<const In> added = residual_rows(first_, t);
    const Rows<Out> out = out_rows(first_, t);
    const Ahead ahead = t + kCount < a_.time_steps ? ahead_of(first_, t + kCount)
                                                   : ahead_of(first_ + kTile, 0);
    Rows<const Drive> drive;
    if constexpr (kWidens) {
      drive = widened<kCount>(from, tile_.drive);
    } else {
      drive = from;
    }
    Rows<const float> residual{tile_.residual, 0};
    if (a_.residual != nullptr) residual = widened<kCount>(added, tile_.residual);
    Rows<Spikes> spikes{reinterpret_cast<Spikes*>(out.first), out.step};
    if (kNarrows || streams_) spikes = {reinterpret_cast<Spikes*>(tile_.spikes), kTile};
    const auto run = adds(a_) ? advance_tile<kCount, true, kGraded, kStrict, Drive, Spikes>
                              : advance_tile<kCount, false, kGraded, kStrict, Drive, Spikes>;
    run(a_.rule, count_, drive, residual, spikes, ahead, tile_);
    if constexpr (kSends) send<kCount>(out);
  }

  // The rows of a tile's next steps from t on.
  Ahead ahead_of(int64_t first, int64_t t) const {
    const bool fetches = prefetches_ && first < end_;
    Ahead ahead{fetches ? std::min<int64_t>(a_.time_steps - t, kSteps) : 0};
    ahead.add(drive_rows(first, t));
    if (a_.residual != nullptr) ahead.add(residual_rows(first, t));
    if (kSends && !streams_ && !in_place_) ahead.add(out_rows(first, t));
    return ahead;
  }

  // The rows of the tile that starts at neuron `first`, from time step t on.
  Rows<const In> drive_rows(int64_t first, int64_t t) const {
    return rows(static_cast<const In*>(a_.drive), a_.drive_step, first, t);
  }
  Rows<const In> residual_rows(int64_t first, int64_t t) const {
    return rows(static_cast<const In*>(a_.residual), a_.residual_step, first, t);
  }
  Rows<Out> out_rows(int64_t first, int64_t t) const {
    return rows(static_cast<Out*>(a_.spikes), a_.spikes_step, first, t);
  }

  template <class T>
  static Rows<T> rows(T* tensor, int64_t step, int64_t first, int64_t t) {
    if (tensor == nullptr) return {nullptr, 0};
    return {tensor + t * step + first, step};
  }

  template <int kCount>
  Rows<const float> widened(const Rows<const In>& rows, float* scratch) const {
    if constexpr (std::is_same_v<In, float>) {
      return rows;
    } else {
      for (int k = 0; k < kCount; ++k) widen_row(rows.at(k), count_, scratch + k * kTile);
      return {scratch, kTile};
    }
  }

  // Rows that the tile holds back go to where the caller wants them.
  template <int kCount>
  void send(const Rows<Out>& out) const {
    for (int k = 0; k < kCount; ++k) {
      if constexpr (kNarrows) {
        narrow_row(tile_.spikes + k * kTile, count_, out.at(k));
      } else if (streams_) {
        stream(reinterpret_cast<const Out*>(tile_.spikes) + k * kTile, count_, out.at(k));
      }
    }
  }

  const Arguments& a_;
  const int64_t begin_;
  const int64_t end_;
  int64_t first_ = 0;  // the tile's neurons
  int64_t count_ = 0;
  bool in_place_;
  bool streams_;
  bool prefetches_;
  Tile tile_;
};

template <class In, class Out>
void run_rule(const Arguments& a, int64_t begin, int64_t end) {
  const bool graded = a.rule.max_spikes > 1;
  if (graded && a.rule.strict) return Run<In, Out, true, true>(a, begin, end).run();
  if (graded) return Run<In, Out, true, false>(a, begin, end).run();
  if (a.rule.strict) return Run<In, Out, false, true>(a, begin, end).run();
  Run<In, Out, false, false>(a, begin, end).run();
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
