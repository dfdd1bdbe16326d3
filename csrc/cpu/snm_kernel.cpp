// The neuron's loop on the CPU; compiled once per instruction set, into a namespace SNM_ISA.
#include <algorithm>
#include <type_traits>

#include "half.h"
#include "lanes.h"
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

// What becomes of a step's spikes, unless they have a type.
struct Nothing {};

// Number: of membranes and parameters.
template <class Number>
struct alignas(kCacheLine) Tile {
  Number v[kTile];
  int32_t m[kTile];
  int32_t negative[kTile];
  Number theta[kTile];
  Number upper[kTile];
  Number lower[kTile];
  uint32_t narrow_theta[kTile];
  Number bias[kTile];
  char spikes[kMostSteps * kTile * sizeof(float)];  // before they are streamed
};

// The same neurons at several time steps.
template <class T>
struct Rows {
  T* first;
  int64_t step;
  SNM_INLINE T* at(int64_t t) const { return first + t * step; }
  SNM_INLINE Rows from(int64_t t) const { return {at(t), step}; }
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

// Neurons with one value, and values that follow each other, are taken at once.
template <class Number>
void gather(const Periodic& parameter, int64_t begin, int64_t count, Number* values) {
  const int64_t index = begin / parameter.inner;
  int64_t inside = begin - index * parameter.inner;
  int64_t position = index % parameter.period;
  while (count > 0) {
    const Number* const from = static_cast<const Number*>(parameter.values) + position;
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

// What the neurons of a drive compute with.
template <class In>
using NumbersOf = std::conditional_t<std::is_same_v<In, Integer>, IntegerLanes, Lanes>;

// kLanes drives as such numbers; of the last ones only `count`.
template <bool kWhole, class In>
SNM_INLINE typename NumbersOf<In>::Number load_drive(const In* row, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(In));
  if constexpr (std::is_same_v<In, float>) return load<Floats, kWhole>(row, bytes);
  else if constexpr (std::is_same_v<In, Integer>) return load<Ints, kWhole>(row, bytes);
  else if constexpr (std::is_same_v<In, int32_t>) return Lanes::to_float(load<Ints, kWhole>(row, bytes));
  else if constexpr (std::is_same_v<In, Half>) return widen_halves(load<Shorts, kWhole>(row, bytes));
  else return widen_bfloat16<Floats>(extended(load<Shorts, kWhole>(row, bytes)));
}

// A float in Out's 16 bits, at the low end of a lane.
template <class Out>
SNM_INLINE Uints narrowed(Floats values) {
  if constexpr (std::is_same_v<Out, BFloat16>) return narrow_bfloat16<Uints>(values);
  else return narrow_half<Uints>(values);
}

// What a step sends. A single spike carries the threshold that was narrowed once.
template <class Out, bool kGraded, class V>
SNM_INLINE auto packed(const Step<V>& sent, Uints narrow_theta) {
  if constexpr (std::is_same_v<Out, float>) {
    return sent.amplitude;
  } else if constexpr (std::is_same_v<Out, int8_t>) {
    return low_bytes(sent.s);
  } else if constexpr (kGraded) {
    return low_halves(narrowed<Out>(sent.amplitude));
  } else {
    const Uints negative = narrow_theta | 0x8000u;
    return low_halves(Lanes::either(sent.fires, narrow_theta, sent.corrects, negative));
  }
}

// All time steps of neurons [begin, end). kStrict: whether u < lower is what corrects.
template <class In, class Out, bool kGraded, bool kStrict>
class Run {
 public:
  Run(const Arguments& a, int64_t begin, int64_t end) : a_(a), begin_(begin), end_(end) {
    counts_ = a.negative_out != nullptr;
    in_place_ = a.spikes == a.drive || a.spikes == a.residual;
    streams_ = kCanStream && !in_place_ && a.time_steps * a.neurons * kOutSize >= kStreamedBytes;
    prefetches_ = a.time_steps * (end - begin) * (kInSize + kOutSize) > kCachedBytes;
  }

  void run() {
    for (first_ = begin_; first_ < end_; first_ += kTile) {
      count_ = std::min(end_ - first_, kTile);
      start();
      int64_t t = 0;
      if (!prefetches_) advance_all<kMost>(t);
      advance_all<kFew>(t);
      advance_all<1>(t);
      std::copy_n(tile_.v, count_, static_cast<Number*>(a_.v_out) + first_);
      std::copy_n(tile_.m, count_, a_.m_out + first_);
      if (counts_) std::copy_n(tile_.negative, count_, a_.negative_out + first_);
    }
    if (streams_) finish_streams();
  }

 private:
  using V = NumbersOf<In>;
  using Numbers = typename V::Number;
  using Number = std::conditional_t<V::kIntegers, int32_t, float>;
  static constexpr bool kSends = !std::is_same_v<Out, Nothing>;
  static constexpr bool kHalf = std::is_same_v<Out, Half> || std::is_same_v<Out, BFloat16>;
  static constexpr bool kTernary = kHalf && !kGraded;
  static constexpr int64_t kInSize = sizeof(In);
  static constexpr int64_t kOutSize = kSends ? sizeof(Out) : 0;
  // Time steps at once: more keep the state in registers for longer, fewer keep fewer rows apart.
  static constexpr int kFew = kGraded ? 1 : 2;
  static constexpr int kMost = std::is_same_v<Out, float> && !kGraded ? kMostSteps : kFew;

  // Thresholds and state of the tile; what is behind its last neuron is computed and never read.
  void start() {
    const int64_t padded = (count_ + kLanes - 1) / kLanes * kLanes;
    const int64_t last = padded - kLanes;
    store(Numbers{}, tile_.theta + last);
    store(Numbers{}, tile_.v + last);
    store(Ints{}, tile_.m + last);
    store(Ints{}, tile_.negative + last);
    store(Numbers{}, tile_.bias + last);
    gather(a_.threshold, first_, count_, tile_.theta);
    if (a_.v_in != nullptr) {
      std::copy_n(static_cast<const Number*>(a_.v_in) + first_, count_, tile_.v);
    }
    if (a_.m_in != nullptr) std::copy_n(a_.m_in + first_, count_, tile_.m);
    if (a_.negative_in != nullptr) std::copy_n(a_.negative_in + first_, count_, tile_.negative);
    if (a_.bias.values != nullptr) gather(a_.bias, first_, count_, tile_.bias);
    if constexpr (V::kIntegers) set_integers(padded);
    for (int64_t j = 0; j < padded; j += kLanes) {
      if constexpr (!V::kIntegers) {
        const auto own = thresholds<Lanes>(load<Floats>(tile_.theta + j), a_.rule);
        store(own.theta, tile_.theta + j);
        store(own.upper, tile_.upper + j);
        store(own.lower, tile_.lower + j);
        if (a_.v_in == nullptr) store(starting_membrane<Lanes>(own.theta, a_.rule), tile_.v + j);
        if constexpr (kTernary) store(narrowed<Out>(own.theta), tile_.narrow_theta + j);
      }
      if (a_.m_in == nullptr) store(Ints{}, tile_.m + j);
      if (counts_ && a_.negative_in == nullptr) store(Ints{}, tile_.negative + j);
    }
  }

  void set_integers(int64_t padded) {
    const Rule rule = a_.rule;
    SNM_INDEPENDENT
    for (int64_t j = 0; j < padded; ++j) {
      const auto own = integer_thresholds(tile_.theta[j], rule);
      tile_.upper[j] = own.upper;
      tile_.lower[j] = own.lower;
    }
    if (a_.v_in != nullptr) return;
    SNM_INDEPENDENT
    for (int64_t j = 0; j < padded; ++j) {
      tile_.v[j] = integer_starting_membrane(tile_.theta[j], rule);
    }
  }

  // As many steps as there are from t on, kCount at a time.
  template <int kCount>
  void advance_all(int64_t& t) {
    const bool adds =
        kCount == 1 || a_.bias.values != nullptr || a_.residual != nullptr || counts_;
    for (; t + kCount <= a_.time_steps; t += kCount) {
      if (adds) {
        advance_tile<kCount, true>(t);
      } else if constexpr (kCount > 1) {
        advance_tile<kCount, false>(t);
      }
    }
  }

  // kCount time steps of the tile from t on. Spikes may overwrite the drive they came from.
  template <int kCount, bool kAdds>
  void advance_tile(int64_t t) {
    const Rows<const In> drive = drive_rows(first_, t);
    const Rows<const In> residual = residual_rows(first_, t);
    const Rows<Out> out = out_rows(first_, t);
    Rows<Out> to = out;
    if (streams_) to = {reinterpret_cast<Out*>(tile_.spikes), kTile};
    const Ahead ahead = t + kCount < a_.time_steps ? ahead_of(first_, t + kCount)
                                                   : ahead_of(first_ + kTile, 0);
    Rule rule = a_.rule;
    rule.strict = kStrict;
    int64_t j = 0;
    for (; j + kLanes <= count_; j += kLanes) {
      if (j % kBlock == 0) ahead.fetch(j);
      advance_lanes<kCount, kAdds, true>(rule, j, kLanes, drive, residual, to);
    }
    for (int k = 0; j < count_ && k < kCount; ++k) {
      advance_lanes<1, true, false>(rule, j, count_ - j, drive.from(k), residual.from(k),
                                    to.from(k));
    }
    if constexpr (kSends) {
      for (int k = 0; streams_ && k < kCount; ++k) stream(to.at(k), count_, out.at(k));
    }
  }

  // The neurons [j, j + count) of the tile, at most kLanes.
  template <int kCount, bool kAdds, bool kWhole>
  SNM_INLINE void advance_lanes(const Rule& rule, int64_t j, int64_t count,
                                const Rows<const In>& drive, const Rows<const In>& residual,
                                const Rows<Out>& to) {
    const bool biased = kAdds && a_.bias.values != nullptr;
    const bool added = kAdds && residual.first != nullptr;
    const bool counts = kAdds && counts_;
    const Thresholds<V> own{load<Numbers>(tile_.theta + j), load<Numbers>(tile_.upper + j),
                            load<Numbers>(tile_.lower + j)};
    Uints narrow_theta{};
    if constexpr (kTernary) narrow_theta = load<Uints>(tile_.narrow_theta + j);
    Numbers bias{};
    if (biased) bias = load<Numbers>(tile_.bias + j);
    Numbers v = load<Numbers>(tile_.v + j);
    Ints m = load<Ints>(tile_.m + j);
    Ints negative{};
    if (counts) negative = load<Ints>(tile_.negative + j);
    // All of the drive first: rows often lie whole pages apart, and a store to one then looks like
    // a load of another.
    Numbers c[kCount];
    for (int k = 0; k < kCount; ++k) {
      c[k] = load_drive<kWhole>(drive.at(k) + j, count);
      if (biased) c[k] = V::add(c[k], bias);
      if (added) c[k] = V::add(c[k], load_drive<kWhole>(residual.at(k) + j, count));
    }
    for (int k = 0; k < kCount; ++k) {
      const Step<V> sent = step<kGraded, V>(c[k], own, v, m, rule);
      if (counts) negative = Lanes::count(negative, sent.corrects, Ints{});
      if constexpr (kSends) {
        store<kWhole>(packed<Out, kGraded>(sent, narrow_theta), to.at(k) + j, count * kOutSize);
      }
    }
    store(v, tile_.v + j);
    store(m, tile_.m + j);
    if (counts) store(negative, tile_.negative + j);
  }

  // The rows of a tile's next steps from t on.
  Ahead ahead_of(int64_t first, int64_t t) const {
    const bool fetches = prefetches_ && first < end_;
    Ahead ahead{fetches ? std::min<int64_t>(a_.time_steps - t, kFew) : 0};
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

  const Arguments& a_;
  const int64_t begin_;
  const int64_t end_;
  int64_t first_ = 0;  // the tile's neurons
  int64_t count_ = 0;
  bool counts_;
  bool in_place_;
  bool streams_;
  bool prefetches_;
  Tile<Number> tile_;
};

template <class In, class Out>
void run_rule(const Arguments& a, int64_t begin, int64_t end) {
  const bool graded = a.rule.max_spikes > 1;
  if (graded && a.rule.strict) return Run<In, Out, true, true>(a, begin, end).run();
  if (graded) return Run<In, Out, true, false>(a, begin, end).run();
  if (a.rule.strict) return Run<In, Out, false, true>(a, begin, end).run();
  Run<In, Out, false, false>(a, begin, end).run();
}

// Their lower thresholds take care of strictness.
template <class Out>
void run_integers(const Arguments& a, int64_t begin, int64_t end) {
  if (a.rule.max_spikes > 1) return Run<Integer, Out, true, true>(a, begin, end).run();
  Run<Integer, Out, false, true>(a, begin, end).run();
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
    default: break;
  }
  if (!a.integers) return run_spikes<int32_t>(a, begin, end);
  switch (a.spikes_type) {
    case DType::kInt8: return run_integers<int8_t>(a, begin, end);
    default: return run_integers<Nothing>(a, begin, end);
  }
}

}  // namespace SNM_ISA
}  // namespace snm
