// A convolution of spikes on the CPU, which costs what its spikes cost; compiled once per
// instruction set, into a namespace SNM_ISA.
#include <algorithm>

#include "lanes.h"
#include "loops.h"
#include "snm.h"
#include "spike_conv.h"
#include "spike_neurons.h"

namespace snm {
namespace {

using Words = uint16_t __attribute__((vector_size(4 * kLanes)));
using SignedWords = int16_t __attribute__((vector_size(4 * kLanes)));

constexpr int64_t kWordLanes = 2 * kLanes;
constexpr int kWordVectors = kWeightBlock / 2 / kWordLanes;  // of a block of weights
// Sums of so many weights of 8 bits fit in 16 bits, added or taken off.
constexpr int64_t kEventsPerWord = 255;
// Vectors of sums in float that are held in registers together, of a block.
constexpr int kFloatVectors = std::min<int>(kWeightBlock / kLanes, 8);
constexpr int64_t kScan = 64;  // channels that are looked at together

// --- lists of spikes ---

// Which of at most kScan spikes are positive, which are negative, and whether one is neither 1 nor
// -1 nor 0.
struct Signs {
  uint64_t positive;
  uint64_t negative;
  bool graded;
};

SNM_INLINE Signs signs_of(const int8_t* spikes, int64_t count) {
#if defined(__AVX512F__)
  const __mmask64 some = count < kScan ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
  const __m512i s = _mm512_maskz_loadu_epi8(some, spikes);
  const uint64_t negative = _mm512_movepi8_mask(s);
  const uint64_t graded = _mm512_cmpgt_epu8_mask(_mm512_abs_epi8(s), _mm512_set1_epi8(1));
  return {_mm512_test_epi8_mask(s, s) & ~negative, negative, graded != 0};
#elif defined(__AVX2__)
  alignas(32) int8_t whole[kScan] = {};
  if (count < kScan) {
    std::copy_n(spikes, count, whole);
    spikes = whole;
  }
  const __m256i one = _mm256_set1_epi8(1);
  Signs signs{};
  for (int half = 0; half < 2; ++half) {
    const __m256i s = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(spikes + 32 * half));
    const auto bits = [&](__m256i lanes) {
      return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(lanes))} << (32 * half);
    };
    signs.positive |= bits(_mm256_cmpgt_epi8(s, _mm256_setzero_si256()));
    signs.negative |= bits(s);
    // Unsigned, as the size of -128 is 128.
    const __m256i more = _mm256_subs_epu8(_mm256_abs_epi8(s), one);
    signs.graded |= _mm256_testz_si256(more, more) == 0;
  }
  return signs;
#else
  Signs signs{};
  for (int64_t i = 0; i < count; i += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, spikes + i, static_cast<size_t>(std::min<int64_t>(8, count - i)));
    for (int64_t k = i; eight != 0; ++k, eight >>= 8) {
      const auto s = static_cast<int8_t>(eight & 0xff);
      signs.positive |= uint64_t{s > 0} << k;
      signs.negative |= uint64_t{s < 0} << k;
      signs.graded |= s > 1 || s < -1;
    }
  }
  return signs;
#endif
}

SNM_INLINE uint32_t size_of(const int8_t* spikes, int64_t index) {
  return static_cast<uint32_t>(spikes[index] < 0 ? -spikes[index] : spikes[index]);
}

SNM_INLINE uint32_t count_of(uint64_t bits, bool graded, const int8_t* spikes) {
  if (!graded) return static_cast<uint32_t>(__builtin_popcountll(bits));
  uint32_t count = 0;
  for (; bits != 0; bits &= bits - 1) count += size_of(spikes, __builtin_ctzll(bits));
  return count;
}

// Appends the places of these bits from `first` on.
SNM_INLINE uint32_t* append(uint64_t bits, bool graded, const int8_t* spikes, uint32_t first,
                            uint32_t* to) {
  if (graded) {
    for (; bits != 0; bits &= bits - 1) {
      const int64_t index = __builtin_ctzll(bits);
      const uint32_t repeats = size_of(spikes, index);
      to = std::fill_n(to, repeats, first + static_cast<uint32_t>(index));
    }
    return to;
  }
#ifdef __AVX512F__
  __m512i places = _mm512_add_epi32(
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
      _mm512_set1_epi32(static_cast<int32_t>(first)));
  if (bits == 0) return to;
  for (int part = 0; part < 4; ++part, bits >>= 16) {
    const auto some = static_cast<__mmask16>(bits);
    const uint32_t count = __builtin_popcount(some);
    // No more than is ours: what follows may be another thread's.
    _mm512_mask_storeu_epi32(to, static_cast<__mmask16>(_bzhi_u32(0xffff, count)),
                             _mm512_maskz_compress_epi32(some, places));
    to += count;
    places = _mm512_add_epi32(places, _mm512_set1_epi32(16));
  }
#else
  for (; bits != 0; bits &= bits - 1) {
    *to++ = first + static_cast<uint32_t>(__builtin_ctzll(bits));
  }
#endif
  return to;
}

// Calls take(pixel, column, first channel, spikes, count) for what lies in the rows' windows.
template <class Take>
SNM_INLINE void scan(const SpikeConvInputs& a, int64_t begin, int64_t end, Take take) {
  const SpikeConvSize& h = a.height;
  const SpikeConvSize& w = a.width;
  const int64_t channels = a.in_channels / a.groups;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t image = row / h.pooled;
    const int64_t top = image * h.in + (row - image * h.pooled) * h.pool;
    for (int64_t g = 0; g < a.groups; ++g) {
      for (int64_t x = 0; x < w.pooled; ++x) {
        const int64_t pixel = (g * rows_of(a) + row) * w.pooled + x;
        take.start(pixel);
        for (int64_t y = top; y < top + h.pool; ++y) {
          for (int64_t column = x * w.pool; column < (x + 1) * w.pool; ++column) {
            const int8_t* const spikes =
                a.spikes + (y * w.in + column) * a.in_channels + g * channels;
            for (int64_t c = 0; c < channels; c += kScan) {
              take.add(spikes + c, std::min(kScan, channels - c), x * channels + c);
            }
          }
        }
        take.finish(pixel);
      }
    }
  }
}

struct Count {
  const Events& events;
  uint64_t positive = 0;
  uint64_t negative = 0;

  SNM_INLINE void start(int64_t) { positive = negative = 0; }
  SNM_INLINE void add(const int8_t* spikes, int64_t count, int64_t) {
    const Signs signs = signs_of(spikes, count);
    positive += count_of(signs.positive, signs.graded, spikes);
    negative += count_of(signs.negative, signs.graded, spikes);
  }
  SNM_INLINE void finish(int64_t pixel) {
    events.starts[0][pixel + 1] = stored(positive);
    events.starts[1][pixel + 1] = stored(negative);
  }
  // More than a start can be is the most, which the caller refuses.
  static SNM_INLINE uint32_t stored(uint64_t count) {
    return static_cast<uint32_t>(std::min<uint64_t>(count, UINT32_MAX));
  }
};

struct List {
  const Events& events;
  uint32_t* positive = nullptr;
  uint32_t* negative = nullptr;

  SNM_INLINE void start(int64_t pixel) {
    positive = events.events[0] + events.starts[0][pixel];
    negative = events.events[1] + events.starts[1][pixel];
  }
  SNM_INLINE void add(const int8_t* spikes, int64_t count, int64_t first) {
    const Signs signs = signs_of(spikes, count);
    const auto place = static_cast<uint32_t>(first);
    positive = append(signs.positive, signs.graded, spikes, place, positive);
    negative = append(signs.negative, signs.graded, spikes, place, negative);
  }
  SNM_INLINE void finish(int64_t) {}
};

// --- sums of weights ---

// The first and the last kLanes words as numbers of 32 bits.
SNM_INLINE Ints low_half(SignedWords words) {
#if defined(__AVX512F__)
  return (Ints)_mm512_maskz_cvtepi16_epi32(
      0xffff, (__m256i)__builtin_shufflevector(words, words, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                               12, 13, 14, 15));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepi16_epi32(_mm256_castsi256_si128((__m256i)words));
#elif defined(__SSE2__)
  return (Ints)_mm_srai_epi32(_mm_unpacklo_epi16((__m128i)words, (__m128i)words), 16);
#else
  return __builtin_convertvector(__builtin_shufflevector(words, words, 0, 1, 2, 3), Ints);
#endif
}

SNM_INLINE Ints high_half(SignedWords words) {
#if defined(__AVX512F__)
  return (Ints)_mm512_maskz_cvtepi16_epi32(
      0xffff, (__m256i)__builtin_shufflevector(words, words, 16, 17, 18, 19, 20, 21, 22, 23, 24,
                                               25, 26, 27, 28, 29, 30, 31));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepi16_epi32(_mm256_extracti128_si256((__m256i)words, 1));
#elif defined(__SSE2__)
  return (Ints)_mm_srai_epi32(_mm_unpackhi_epi16((__m128i)words, (__m128i)words), 16);
#else
  return __builtin_convertvector(__builtin_shufflevector(words, words, 4, 5, 6, 7), Ints);
#endif
}

// Adds the weights of events to one block of outputs, or takes them off. A word has one weight
// plus 128 in its low byte and another in its high byte: `words` adds up both at once, and `highs`
// the high ones alone, so that both sums come out.
template <bool kNegative>
SNM_INLINE void add_words(const uint32_t* event, const uint32_t* end, const int8_t* weights,
                          Words (&words)[kWordVectors], Words (&highs)[kWordVectors]) {
  for (; event < end; ++event) {
    uint64_t place = *event;
    // Compilers take it through a vector's register otherwise.
    __asm__("" : "+r"(place));
    const int8_t* const row = weights + place;
    for (int j = 0; j < kWordVectors; ++j) {
      const Words both = load<Words>(row + j * sizeof(Words));
      const Words high = (Words)((SignedWords)both >> 8);
      words[j] = kNegative ? words[j] - both : words[j] + both;
      highs[j] = kNegative ? highs[j] - high : highs[j] + high;
    }
  }
}

// Sums a block's weights of positive events [list, middle) and negative ones [middle, end).
SNM_INLINE void sum_block(const uint32_t* list, const uint32_t* middle, const uint32_t* end,
                          const int8_t* weights, int32_t* sums) {
  bool first = true;
  do {
    const uint32_t* const stop = std::min(list + kEventsPerWord, end);
    const uint32_t* const turn = std::min(stop, std::max(middle, list));
    Words words[kWordVectors] = {};
    Words highs[kWordVectors] = {};
    add_words<false>(list, turn, weights, words, highs);
    add_words<true>(turn, stop, weights, words, highs);
    const int64_t net = (turn - list) - (stop - turn);
    const Words excess = Words{} + static_cast<uint16_t>(128 * net);
    for (int j = 0; j < kWordVectors; ++j) {
      const auto high = (SignedWords)highs[j];
      const auto low = (SignedWords)(words[j] - (highs[j] << 8) - excess);
      const Ints parts[4] = {low_half(low), high_half(low), low_half(high), high_half(high)};
      int32_t* const to = sums + j * kWordLanes;
      for (int k = 0; k < 4; ++k) {
        int32_t* const place = to + (k / 2) * (kWeightBlock / 2) + (k % 2) * kLanes;
        store(first ? parts[k] : IntegerLanes::add(load<Ints>(place), parts[k]), place);
      }
    }
    first = false;
    list = stop;
  } while (list < end);
}

// The same in float, where every weight is added by itself, and in this order.
SNM_INLINE void sum_block(const uint32_t* list, const uint32_t* middle, const uint32_t* end,
                          const float* weights, float* sums) {
  constexpr int64_t width = kFloatVectors * kLanes;
  for (int64_t k = 0; k < kWeightBlock; k += width) {
    Floats parts[kFloatVectors] = {};
    const float* const first = weights + k;
    for (const uint32_t* event = list; event < middle; ++event) {
      const float* const row = first + *event;
      for (int j = 0; j < kFloatVectors; ++j) parts[j] += load<Floats>(row + j * kLanes);
    }
    for (const uint32_t* event = middle; event < end; ++event) {
      const float* const row = first + *event;
      for (int j = 0; j < kFloatVectors; ++j) parts[j] -= load<Floats>(row + j * kLanes);
    }
    for (int j = 0; j < kFloatVectors; ++j) store(parts[j], sums + k + j * kLanes);
  }
}

// --- units ---

// One block of outputs of a row of pixels of one image, over all time steps.
template <class Number, bool kGraded>
class Unit {
 public:
  Unit(const SpikeConvArguments<Number>& a, const Events& events, const SpikeConvPlan& plan,
       const SpikeConvBuffers<Number>& buffers)
      : a_(a), events_(events), plan_(plan), b_(buffers) {
    channels_ = a.in_channels / a.groups;
    outputs_ = a.out_channels / a.groups;
    taps_ = a.height.kernel * a.width.kernel;
    shift_ = __builtin_ctzll(static_cast<uint64_t>(a.block));
    step_ = a.batch * a.height.out * a.width.out * a.out_channels;
    rule_ = rule_of(a);
  }

  void run(int64_t unit) {
    const int64_t tile = unit % plan_.tiles;
    unit /= plan_.tiles;
    row_ = unit % a_.height.out;
    unit /= a_.height.out;
    image_ = unit % a_.batch;
    unit /= a_.batch;  // of the blocks of all groups
    group_ = unit / plan_.blocks;
    const int64_t inside = (unit - group_ * plan_.blocks) * a_.block;
    count_ = std::min(a_.block, outputs_ - inside);
    output_ = group_ * outputs_ + inside;
    weights_ = a_.weight + unit * taps_ * channels_ * a_.block;
    first_ = tile * plan_.tile;
    width_ = std::min(plan_.tile, a_.width.out - first_);
    start();
    for (int64_t t = 0; t < a_.time_steps; ++t) {
      fetch(t);
      for (int64_t x = 0; x < width_; ++x) advance(t, x);
    }
    if (a_.drive == nullptr) finish();
  }

 private:
  // Where an output of the slice of one time step lies.
  SNM_INLINE int64_t place(int64_t x) const {
    const int64_t pixel = (image_ * a_.height.out + row_) * a_.width.out + first_ + x;
    return pixel * a_.out_channels + output_;
  }

  // Parameters that all pixels share are kept once.
  SNM_INLINE int64_t own(int64_t pixels, int64_t x) const { return pixels == 1 ? 0 : x * a_.block; }

  // Where parameters of a pixel of the tile, or of all, begin.
  SNM_INLINE const Number* at(const Number* values, int64_t pixels, int64_t x) const {
    const int64_t pixel = pixels == 1 ? 0 : row_ * a_.width.out + first_ + x;
    return values + pixel * a_.out_channels + output_;
  }

  // Parameters and state of the tile; what is behind its last output is computed and never read.
  void start() {
    const bool known = output_ == prepared_;
    for (int64_t x = 0; x < width_; ++x) {
      if (a_.bias != nullptr && (a_.bias_pixels > 1 || (x == 0 && !known))) {
        read(at(a_.bias, a_.bias_pixels, x), count_, a_.block, Number{},
             b_.bias + own(a_.bias_pixels, x));
      }
      if (a_.drive != nullptr) continue;
      const int64_t shared = own(a_.threshold_pixels, x);
      if (a_.threshold_pixels > 1 || (x == 0 && !known)) {
        prepare(at(a_.threshold, a_.threshold_pixels, x), count_, a_.block, a_.rule,
                {b_.theta + shared, b_.upper + shared, b_.lower + shared, b_.start + shared});
      }
      Number* const v = b_.v + x * a_.block;
      int32_t* const m = b_.m + x * a_.block;
      std::copy_n(b_.start + shared, a_.block, v);
      std::fill_n(m, a_.block, 0);
      if (a_.v_in != nullptr) std::copy_n(a_.v_in + place(x), count_, v);
      if (a_.m_in != nullptr) std::copy_n(a_.m_in + place(x), count_, m);
    }
    prepared_ = output_;
  }

  void finish() {
    for (int64_t x = 0; x < width_; ++x) {
      std::copy_n(b_.v + x * a_.block, count_, a_.v_out + place(x));
      std::copy_n(b_.m + x * a_.block, count_, a_.m_out + place(x));
    }
  }

  // Asks for the lists of the step after t, and for where those of the step after that are: every
  // time step lies elsewhere.
  SNM_INLINE void fetch(int64_t t) const {
    const SpikeConvSize& h = a_.height;
    const SpikeConvSize& w = a_.width;
    const int64_t left = std::max<int64_t>(0, first_ * w.stride - w.padding);
    const int64_t right = std::min(w.pooled, (first_ + width_ - 1) * w.stride - w.padding +
                                                 w.dilation * (w.kernel - 1) + 1);
    for (int64_t ky = 0; ky < h.kernel && left < right; ++ky) {
      const int64_t y = row_ * h.stride - h.padding + ky * h.dilation;
      if (y < 0 || y >= h.pooled) continue;
      for (int sign = 0; sign < 2; ++sign) {
        if (t + 2 < a_.time_steps) prefetch<0>(row_of(sign, t + 2, y) + left, right - left + 1);
        if (t + 1 >= a_.time_steps) continue;
        const uint32_t* const row = row_of(sign, t + 1, y);
        prefetch<0>(events_.events[sign] + row[left], row[right] - row[left]);
      }
    }
  }

  // Where the lists of a row of pixels start.
  SNM_INLINE const uint32_t* row_of(int sign, int64_t t, int64_t y) const {
    const int64_t image = (group_ * a_.time_steps + t) * a_.batch + image_;
    return events_.starts[sign] + (image * a_.height.pooled + y) * a_.width.pooled;
  }

  // One time step of a pixel.
  SNM_INLINE void advance(int64_t t, int64_t x) {
    uint32_t* const middle = gather(0, t, x, b_.list);
    uint32_t* const end = gather(1, t, x, middle);
    for (int64_t k = 0; k < a_.block; k += kWeightBlock) {
      sum_block(b_.list, middle, end, weights_ + k, b_.drive + k);
    }
    const int64_t shared = own(a_.threshold_pixels, x);
    const int64_t to = t * step_ + place(x);
    Driven<Number> driven{};
    driven.drive = b_.drive;
    if (a_.bias != nullptr) driven.bias = b_.bias + own(a_.bias_pixels, x);
    if (a_.residual != nullptr) driven.residual = a_.residual + t * a_.residual_step + place(x);
    if (a_.drive != nullptr) driven.out = a_.drive + to;
    if (a_.sent != nullptr) driven.sent = a_.sent + to;
    driven.theta = b_.theta + shared;
    driven.upper = b_.upper + shared;
    driven.lower = b_.lower + shared;
    driven.v = b_.v + x * a_.block;
    driven.m = b_.m + x * a_.block;
    fire_all<kGraded>(driven, rule_, 1, count_);
  }

  // Lists where the weights of the events of one sign begin, of all inputs of an output.
  SNM_INLINE uint32_t* gather(int sign, int64_t t, int64_t x, uint32_t* to) const {
    const SpikeConvSize& h = a_.height;
    const SpikeConvSize& w = a_.width;
    const int64_t left = (first_ + x) * w.stride - w.padding;
    for (int64_t ky = 0; ky < h.kernel; ++ky) {
      const int64_t y = row_ * h.stride - h.padding + ky * h.dilation;
      if (y < 0 || y >= h.pooled) continue;
      const uint32_t* const row = row_of(sign, t, y);
      if (w.dilation == 1) {
        const int64_t from = std::max<int64_t>(0, left);
        const int64_t until = std::min(w.pooled, left + w.kernel);
        if (from >= until) continue;
        to = shifted(sign, row[from], row[until], ky * w.kernel - left, to);
      } else {
        for (int64_t kx = 0; kx < w.kernel; ++kx) {
          const int64_t column = left + kx * w.dilation;
          if (column < 0 || column >= w.pooled) continue;
          to = shifted(sign, row[column], row[column + 1], ky * w.kernel + kx - column, to);
        }
      }
    }
    return to;
  }

  // Copies events; `tap` is the number of the tap that reads column 0.
  SNM_INLINE uint32_t* shifted(int sign, uint32_t from, uint32_t until, int64_t tap,
                               uint32_t* to) const {
    const uint32_t* const events = events_.events[sign] + from;
    const Uints base = Uints{} + static_cast<uint32_t>(tap * channels_);
    const int64_t count = until - from;
    const auto shift = [&](int64_t i) {
      store((load<Uints>(events + i) + base) << static_cast<uint32_t>(shift_), to + i);
    };
    // So many always: how many there are is hard to predict.
    for (int64_t i = 0; i < kListPadding; i += kLanes) shift(i);
    for (int64_t i = kListPadding; i < count; i += kLanes) shift(i);
    return to + count;
  }

  const SpikeConvArguments<Number>& a_;
  const Events& events_;
  const SpikeConvPlan& plan_;
  const SpikeConvBuffers<Number>& b_;
  Rule rule_;
  int64_t channels_;  // that a group reads
  int64_t outputs_;   // of a group
  int64_t taps_;
  int64_t step_;      // outputs of a time step
  int shift_;  // the block's logarithm
  int64_t row_ = 0;
  int64_t image_ = 0;
  int64_t group_ = 0;
  int64_t output_ = 0;  // the first of the block
  int64_t prepared_ = -1;  // the block whose shared parameters are there
  int64_t count_ = 0;   // of the block's outputs
  int64_t first_ = 0;   // the tile's first column
  int64_t width_ = 0;   // and how many it has
  const typename SpikeConvArguments<Number>::Weight* weights_ = nullptr;
};

template <class Number>
void convolve(const SpikeConvArguments<Number>& a, const Events& events, int64_t most,
              int64_t begin, int64_t end, char* memory) {
  const SpikeConvPlan plan = plan_of(a);
  const SpikeConvBuffers<Number> buffers = buffers_of(a, plan, most, memory);
  const auto run = [&](auto unit) {
    for (int64_t each = begin; each < end; ++each) unit.run(each);
  };
  if (a.rule.max_spikes > 1) return run(Unit<Number, true>(a, events, plan, buffers));
  run(Unit<Number, false>(a, events, plan, buffers));
}

}  // namespace

namespace SNM_ISA {

void count_events(const SpikeConvInputs& a, const Events& events, int64_t begin, int64_t end) {
  scan(a, begin, end, Count{events});
}

void list_events(const SpikeConvInputs& a, const Events& events, int64_t begin, int64_t end) {
  scan(a, begin, end, List{events});
}

void convolve_integers(const SpikeConvArguments<int32_t>& a, const Events& events, int64_t most,
                       int64_t begin, int64_t end, char* memory) {
  convolve(a, events, most, begin, end, memory);
}

void convolve_floats(const SpikeConvArguments<float>& a, const Events& events, int64_t most,
                     int64_t begin, int64_t end, char* memory) {
  convolve(a, events, most, begin, end, memory);
}

}  // namespace SNM_ISA
}  // namespace snm
