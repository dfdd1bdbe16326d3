// A convolution of spikes on the CPU as a product of matrices, spikes and zeros alike; compiled
// once per instruction set, into a namespace SNM_ISA.
#include <algorithm>

#include "loops.h"
#include "snm.h"
#include "spike_conv.h"
#include "spike_neurons.h"

namespace snm {
namespace {

constexpr int64_t kTileBytes = kTileRows * kDepth;
constexpr int64_t kRowOfDrive = kPanels * kPanel;

// --- products ---

// Where a panel of weights or a tile of inputs has its tile of the next kDepth inputs: behind it.
// A tile of weights has for each four inputs those of its outputs, side by side.

#if defined(__AMX_INT8__)

constexpr uint8_t kShift = 0;

// The registers of tiles, which a thread has to set up before it uses them.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start = 0;
      uint8_t reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } all;
    std::fill_n(all.bytes, 8, static_cast<uint16_t>(kDepth));
    std::fill_n(all.rows, 8, static_cast<uint8_t>(kTileRows));
    __asm__ volatile("" : : "m"(all));
    _tile_loadconfig(&all);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Two tiles of inputs times one or two panels.
template <bool kTwo>
SNM_INLINE void multiply_pair(const uint8_t* inputs, int64_t depth, const int8_t* weights,
                              int32_t* sums) {
  const uint8_t* const below = inputs + kTileRows * depth;
  const int8_t* const next = weights + kPanel * depth;
  // Compilers don't know that tiles read memory.
  __asm__ volatile("" : : : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < depth / kDepth * kTileBytes; k += kTileBytes) {
    _tile_loadd(4, inputs + k, kDepth);
    _tile_loadd(5, below + k, kDepth);
    _tile_loadd(6, weights + k, kDepth);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 5, 6);
    if (kTwo) {
      _tile_loadd(7, next + k, kDepth);
      _tile_dpbssd(2, 4, 7);
      _tile_dpbssd(3, 5, 7);
    }
  }
  constexpr int64_t row = kRowOfDrive * static_cast<int64_t>(sizeof(int32_t));
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + kTileRows * kRowOfDrive, row);
  if (kTwo) {
    _tile_stored(2, sums + kPanel, row);
    _tile_stored(3, sums + kTileRows * kRowOfDrive + kPanel, row);
  }
}

template <int kCount>
SNM_INLINE void multiply(const uint8_t* inputs, int64_t rows, int64_t depth, const int8_t* weights,
                         int32_t* sums) {
  for (int64_t r = 0; r < rows; r += 2 * kTileRows) {
    for (int p = 0; p < kCount; p += 2) {
      const int8_t* const panel = weights + p * kPanel * depth;
      int32_t* const to = sums + r * kRowOfDrive + p * kPanel;
      if (p + 1 < kCount) multiply_pair<true>(inputs + r * depth, depth, panel, to);
      if (p + 1 == kCount) multiply_pair<false>(inputs + r * depth, depth, panel, to);
    }
  }
}

#elif defined(__AVX512VNNI__)

// Instructions take one factor without sign: inputs are 128 more, which is taken off all sums.
constexpr uint8_t kShift = 128;

struct Tiles {};

template <int kCount>
SNM_INLINE void multiply(const uint8_t* inputs, int64_t rows, int64_t depth, const int8_t* weights,
                         int32_t* sums) {
  constexpr int kRows = kPanel / kCount;  // at once
  const int64_t end = depth / kDepth * kTileBytes;
  const auto load_weights = [&](int p, int64_t k) {
    return _mm512_loadu_si512(weights + p * kPanel * depth + k);
  };
  __m512i excess[kCount];
  for (int p = 0; p < kCount; ++p) {
    const __m512i shift = _mm512_set1_epi8(static_cast<int8_t>(kShift));
    excess[p] = _mm512_setzero_si512();
    for (int64_t k = 0; k < end; k += kDepth) {
      excess[p] = _mm512_dpbusd_epi32(excess[p], shift, load_weights(p, k));
    }
  }
  for (int64_t r = 0; r < rows; r += kRows) {
    // A step of rows stays within a tile, or reads rows of it twice.
    const int64_t in_tile = std::min(r % kTileRows, kTileRows - kRows);
    r = r / kTileRows * kTileRows + in_tile;
    const uint8_t* const tile = inputs + r / kTileRows * kTileRows * depth + in_tile * kDepth;
    __m512i made[kRows][kCount];
    for (int i = 0; i < kRows; ++i) {
      for (int p = 0; p < kCount; ++p) {
        made[i][p] = _mm512_sub_epi32(_mm512_setzero_si512(), excess[p]);
      }
    }
    for (int64_t step = 0; step < end; step += kTileBytes) {
      for (int64_t four = 0; four < kTileRows; ++four) {
        __m512i panel[kCount];
        for (int p = 0; p < kCount; ++p) panel[p] = load_weights(p, step + four * kDepth);
        for (int i = 0; i < kRows; ++i) {
          int32_t word;
          std::memcpy(&word, tile + step + i * kDepth + four * 4, sizeof word);
          const __m512i spikes = _mm512_set1_epi32(word);
          for (int p = 0; p < kCount; ++p) {
            made[i][p] = _mm512_dpbusd_epi32(made[i][p], spikes, panel[p]);
          }
        }
      }
    }
    for (int i = 0; i < kRows; ++i) {
      for (int p = 0; p < kCount; ++p) {
        _mm512_storeu_si512(sums + (r + i) * kRowOfDrive + p * kPanel, made[i][p]);
      }
    }
  }
}

#else

constexpr uint8_t kShift = 0;

struct Tiles {};

template <int kCount>
SNM_INLINE void multiply(const uint8_t* inputs, int64_t rows, int64_t depth, const int8_t* weights,
                         int32_t* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* const row = inputs + r / kTileRows * kTileRows * depth + r % kTileRows * kDepth;
    uint32_t made[kCount * kPanel] = {};
    for (int64_t k = 0; k < depth; k += 4) {
      int8_t spikes[4];
      std::memcpy(spikes, row + k / kDepth * kTileBytes + k % kDepth, sizeof spikes);
      if ((spikes[0] | spikes[1] | spikes[2] | spikes[3]) == 0) continue;
      for (int p = 0; p < kCount; ++p) {
        const int8_t* const four = weights + p * kPanel * depth + k * kPanel;
        for (int64_t j = 0; j < kPanel; ++j) {
          int32_t sum = 0;
          for (int i = 0; i < 4; ++i) sum += spikes[i] * four[4 * j + i];
          made[p * kPanel + j] += static_cast<uint32_t>(sum);
        }
      }
    }
    std::memcpy(sums + r * kRowOfDrive, made, sizeof made);
  }
}

#endif

// --- units ---

// Copies kDepth bytes, each of them shifted.
template <uint8_t kBy = 0>
SNM_INLINE void copy_row(const void* from, void* to) {
  using Row = uint8_t __attribute__((vector_size(4 * kLanes)));
  for (size_t i = 0; i < kDepth; i += sizeof(Row)) {
    store((Row)(load<Row>(static_cast<const uint8_t*>(from) + i) ^ kBy),
          static_cast<uint8_t*>(to) + i);
  }
}

template <bool kGraded>
class DenseUnit {
 public:
  DenseUnit(const SpikeConvArguments<int32_t>& a, const DensePlan& plan, const DenseBuffers& buffers)
      : a_(a), plan_(plan), b_(buffers), rule_(rule_of(a)) {
    step_ = plan.pixels * a.out_channels;
  }

  void run(int64_t unit) {
    const int64_t part = unit % plan_.parts;
    unit /= plan_.parts;
    const int64_t first = unit % plan_.bands * plan_.band;
    const int64_t pixels = std::min(plan_.band, plan_.pixels - first);
    const int64_t group = unit / plan_.bands;
    if (group != group_) enter(group);
    const int64_t end = std::min(plan_.panels, (part + 1) * plan_.part);
    for (int64_t t = 0; t < a_.time_steps; t += plan_.steps) {
      const int64_t steps = std::min(plan_.steps, a_.time_steps - t);
      if (!a_.depthwise) gather(first, pixels, t, steps);
      const int64_t rows = (pixels * steps + 2 * kTileRows - 1) / (2 * kTileRows) * 2 * kTileRows;
      for (int64_t panel = part * plan_.part; panel < end; panel += kPanels) {
        if (a_.depthwise) {
          sum_channels(first, pixels, t, steps, panel, end);
        } else {
          multiply_panels(std::min(kPanels, end - panel), rows, panel);
        }
        for (int64_t p = 0; p < pixels; ++p) advance(first + p, p * steps, t, steps, panel, end);
      }
    }
  }

 private:
  // Parameters that the pixels of a group share.
  void enter(int64_t group) {
    group_ = group;
    const int64_t output = group * plan_.outputs;
    const int64_t whole = plan_.panels * kPanel;
    if (a_.bias != nullptr && a_.bias_pixels == 1) {
      read(a_.bias + output, plan_.outputs, whole, 0, b_.bias);
    }
    if (a_.drive == nullptr && a_.threshold_pixels == 1) {
      prepare(a_.threshold + output, plan_.outputs, whole, a_.rule,
              {b_.theta, b_.upper, b_.lower, b_.start});
    }
  }

  // Makes the rows of inputs of some pixels, time steps of a pixel side by side.
  void gather(int64_t first, int64_t pixels, int64_t begin, int64_t steps) {
    const int64_t step = a_.batch * a_.height.in * a_.width.in * a_.in_channels;
    int64_t row = 0;
    for (int64_t pixel = first; pixel < first + pixels; ++pixel) {
      std::fill_n(b_.row, plan_.depth, kShift);
      for (int64_t t = begin; t < begin + steps; ++t, ++row) {
        copy_inputs(a_.spikes + t * step, pixel);
        uint8_t* const to =
            b_.tiles + row / kTileRows * kTileRows * plan_.depth + row % kTileRows * kDepth;
        for (int64_t k = 0; k < plan_.depth; k += kDepth) {
          copy_row(b_.row + k, to + k * kTileRows);
        }
      }
    }
  }

  // Copies what an output reads into the row; what lies outside stays zero.
  SNM_INLINE void copy_inputs(const int8_t* spikes, int64_t pixel) {
    const SpikeConvSize& h = a_.height;
    const SpikeConvSize& w = a_.width;
    const int64_t column = pixel % w.out;
    const int64_t line = pixel / w.out % h.out;
    const int64_t image = pixel / (w.out * h.out);
    const int64_t left = column * w.stride - w.padding;
    // Places of a kernel's row lie side by side, where all of what is there is read.
    const bool whole = w.dilation == 1 && a_.groups == 1;
    for (int64_t ky = 0; ky < h.kernel; ++ky) {
      const int64_t y = line * h.stride - h.padding + ky * h.dilation;
      if (y < 0 || y >= h.in) continue;
      const int8_t* const from =
          spikes + (image * h.in + y) * w.in * a_.in_channels + group_ * plan_.channels;
      uint8_t* const to = b_.row + ky * w.kernel * plan_.channels;
      // What the next output reads beside it: every time step lies in pages of its own.
      const int64_t next = std::min(w.in - w.stride, left + w.kernel);
      if (next > 0) prefetch<0>(from + next * a_.in_channels, w.stride * a_.in_channels);
      if (whole) {
        const int64_t begin = std::max<int64_t>(0, left);
        const int64_t end = std::min(w.in, left + w.kernel);
        if (begin < end) {
          copy(from + begin * plan_.channels, (end - begin) * plan_.channels,
               to + (begin - left) * plan_.channels);
        }
        continue;
      }
      for (int64_t kx = 0; kx < w.kernel; ++kx) {
        const int64_t x = left + kx * w.dilation;
        if (x < 0 || x >= w.in) continue;
        copy(from + x * a_.in_channels, plan_.channels, to + kx * plan_.channels);
      }
    }
  }

  static SNM_INLINE void copy(const int8_t* from, int64_t count, uint8_t* to) {
    int64_t i = 0;
    for (; i + kDepth <= count; i += kDepth) copy_row<kShift>(from + i, to + i);
    for (; i < count; ++i) to[i] = static_cast<uint8_t>(from[i]) ^ kShift;
  }

  SNM_INLINE void multiply_panels(int64_t count, int64_t rows, int64_t panel) const {
    const int8_t* const weights =
        a_.weight + (group_ * plan_.panels + panel) * kPanel * plan_.depth;
    if (count == 4) multiply<4>(b_.tiles, rows, plan_.depth, weights, b_.drive);
    if (count == 3) multiply<3>(b_.tiles, rows, plan_.depth, weights, b_.drive);
    if (count == 2) multiply<2>(b_.tiles, rows, plan_.depth, weights, b_.drive);
    if (count == 1) multiply<1>(b_.tiles, rows, plan_.depth, weights, b_.drive);
  }

  // Where outputs read their own channel alone: sums its spikes' weights, of some panels.
  void sum_channels(int64_t first, int64_t pixels, int64_t begin, int64_t steps, int64_t panel,
                    int64_t end) const {
    const int64_t step = a_.batch * a_.height.in * a_.width.in * a_.in_channels;
    const int64_t channel = panel * kPanel;
    const int64_t count = std::min(std::min(kPanels, end - panel) * kPanel,
                                   plan_.channels - channel);
    int32_t* to = b_.drive;
    for (int64_t pixel = first; pixel < first + pixels; ++pixel) {
      const int64_t taps = find_taps(pixel);
      for (int64_t t = begin; t < begin + steps; ++t, to += kRowOfDrive) {
        const int8_t* const spikes = a_.spikes + t * step + channel;
        int64_t j = 0;
        for (; j + kLanes <= count; j += kLanes) {
          store(sum_taps<true>(spikes + j, channel + j, taps), to + j);
        }
        if (j < count) {
          store(sum_taps<false>(spikes + j, channel + j, taps, count - j), to + j);
        }
      }
    }
  }

  // Lists where spikes and weights of an output lie; returns of how many.
  int64_t find_taps(int64_t pixel) const {
    const SpikeConvSize& h = a_.height;
    const SpikeConvSize& w = a_.width;
    const int64_t left = pixel % w.out * w.stride - w.padding;
    const int64_t top = pixel / w.out % h.out * h.stride - h.padding;
    const int64_t image = pixel / (w.out * h.out) * h.in;
    int64_t found = 0;
    for (int64_t tap = 0; tap < plan_.taps; ++tap) {
      const int64_t y = top + tap / w.kernel * h.dilation;
      const int64_t x = left + tap % w.kernel * w.dilation;
      if (y < 0 || y >= h.in || x < 0 || x >= w.in) continue;
      b_.taps[found].spikes = ((image + y) * w.in + x) * a_.in_channels;
      b_.taps[found++].weights = tap * plan_.panels * kPanel;
    }
    return found;
  }

  template <bool kWhole>
  SNM_INLINE Uints sum_taps(const int8_t* spikes, int64_t channel, int64_t taps,
                            int64_t count = kLanes) const {
    Uints sum{};
    for (int64_t i = 0; i < taps; ++i) {
      const Ints spike = widened(load<Bytes, kWhole>(spikes + b_.taps[i].spikes, count));
      const Ints weight = widened(load<Bytes>(a_.weight + b_.taps[i].weights + channel));
      sum += (Uints)(spike * weight);
    }
    return sum;
  }

  // Runs a pixel's outputs from a panel on over some time steps.
  SNM_INLINE void advance(int64_t pixel, int64_t row, int64_t t, int64_t steps, int64_t panel,
                          int64_t end) {
    const int64_t inside = panel * kPanel;
    const int64_t count =
        std::min(std::min(kPanels, end - panel) * kPanel, plan_.outputs - inside);
    const int64_t output = group_ * plan_.outputs + inside;
    const int64_t place = pixel * a_.out_channels + output;
    const auto own = [&](const int32_t* values) {
      return values + pixel % (a_.height.out * a_.width.out) * a_.out_channels + output;
    };
    const int64_t whole = (count + kPanel - 1) / kPanel * kPanel;
    Driven<int32_t> driven{};
    driven.drive = b_.drive + row * kRowOfDrive;
    driven.drive_step = kRowOfDrive;
    driven.step = step_;
    if (a_.bias != nullptr) {
      driven.bias = b_.bias + inside;
      if (a_.bias_pixels > 1) read(own(a_.bias), count, whole, 0, b_.bias + inside);
    }
    if (a_.drive != nullptr) {
      driven.out = a_.drive + t * step_ + place;
      return fire_all<kGraded>(driven, rule_, steps, count);
    }
    const Compared<int32_t> compared{b_.theta + inside, b_.upper + inside, b_.lower + inside,
                            b_.start + inside};
    if (a_.threshold_pixels > 1) prepare(own(a_.threshold), count, whole, a_.rule, compared);
    driven.theta = compared.theta;
    driven.upper = compared.upper;
    driven.lower = compared.lower;
    driven.v = a_.v_out + place;
    driven.m = a_.m_out + place;
    if (t == 0) {
      std::copy_n(a_.v_in == nullptr ? compared.start : a_.v_in + place, count, driven.v);
      if (a_.m_in == nullptr) std::fill_n(driven.m, count, 0);
      if (a_.m_in != nullptr) std::copy_n(a_.m_in + place, count, driven.m);
    }
    if (a_.residual != nullptr) driven.residual = a_.residual + t * a_.residual_step + place;
    driven.residual_step = a_.residual_step;
    if (a_.sent != nullptr) driven.sent = a_.sent + t * step_ + place;
    fire_all<kGraded>(driven, rule_, steps, count);
  }

  const SpikeConvArguments<int32_t>& a_;
  const DensePlan& plan_;
  const DenseBuffers& b_;
  Rule rule_;
  int64_t step_;        // outputs of a time step
  int64_t group_ = -1;  // whose parameters are there
};

template <bool kGraded>
void run_units(const SpikeConvArguments<int32_t>& a, const DensePlan& plan, const DenseBuffers& buffers,
               int64_t begin, int64_t end) {
  DenseUnit<kGraded> unit(a, plan, buffers);
  for (int64_t each = begin; each < end; ++each) unit.run(each);
}

}  // namespace

namespace SNM_ISA {

bool sum_windows(const SpikeConvInputs& a, int64_t begin, int64_t end, int8_t* sums) {
  const SpikeConvSize& h = a.height;
  const SpikeConvSize& w = a.width;
  bool fits = true;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t top = row / h.pooled * h.in + row % h.pooled * h.pool;
    for (int64_t x = 0; x < w.pooled; ++x) {
      int8_t* const to = sums + (row * w.pooled + x) * a.in_channels;
      for (int64_t c = 0; c < a.in_channels; c += kDepth) {
        const int64_t count = std::min(kDepth, a.in_channels - c);
        int32_t made[kDepth] = {};
        for (int64_t y = top; y < top + h.pool; ++y) {
          for (int64_t column = x * w.pool; column < (x + 1) * w.pool; ++column) {
            const int8_t* const spikes = a.spikes + (y * w.in + column) * a.in_channels + c;
            for (int64_t i = 0; i < count; ++i) made[i] += spikes[i];
          }
        }
        for (int64_t i = 0; i < count; ++i) {
          to[c + i] = static_cast<int8_t>(made[i]);
          fits &= to[c + i] == made[i];
        }
      }
    }
  }
  return fits;
}

void convolve_densely(const SpikeConvArguments<int32_t>& a, int64_t begin, int64_t end,
                      char* memory) {
  const DensePlan plan = dense_plan_of(a);
  const DenseBuffers buffers = dense_buffers_of(plan, memory);
  [[maybe_unused]] const Tiles tiles{};
  if (a.rule.max_spikes > 1) return run_units<true>(a, plan, buffers, begin, end);
  run_units<false>(a, plan, buffers, begin, end);
}

}  // namespace SNM_ISA
}  // namespace snm
