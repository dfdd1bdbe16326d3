// The running maximum's loop on the CPU; compiled once per instruction set, into a namespace
// SNM_ISA. Rows are pooled along the width first, then rows with each other: windows see their
// taps in row-major order.
#include <type_traits>

#include "half.h"
#include "loops.h"
#include "running_max.h"

namespace snm {
namespace {

// What the windows compare, given an input's total.
SNM_INLINE void value_of(int32_t total, float, int32_t& value) { value = total; }
SNM_INLINE void value_of(int32_t total, float theta, float& value) {
  value = carried(total, theta);
}
SNM_INLINE void value_of(float total, float, float& value) { value = total; }

SNM_INLINE int32_t added(int32_t total, int8_t x) { return total + x; }
template <class In>
SNM_INLINE float added(float total, In x) {
  return total + widen(x);
}

// A difference of maxima may be NaN, which narrow() does not take.
template <class Out>
SNM_INLINE Out narrowed(float value) {
  constexpr uint16_t kNaN = std::is_same_v<Out, Half> ? 0x7e00 : 0x7fc0;
  const Out narrow_value = narrow<Out>(value);
  return {value != value ? kNaN : narrow_value.bits};
}

// One unit of a run; see RunningMaxPlan. kCarries: thresholds differ within windows.
template <class In, class Total, class Value, bool kCarries>
class Unit {
 public:
  Unit(const RunningMaxArguments& a, const RunningMaxPlan& plan, const RunningMaxBuffers& buffers,
       int64_t unit)
      : a_(a), plan_(plan), b_(buffers), width_(a.windows[2]) {
    if (a.channels_last) {
      const int64_t image = unit / plan.blocks;
      channel_ = unit % plan.blocks * plan.inner;
      const int64_t left = a.channels - channel_;
      inner_ = left < plan.inner ? left : plan.inner;
      planes_ = 1;
      whole_ = inner_ == a.channels;
      position_ = a.channels;
      first_input_ = image * inputs_of(a) * a.channels + channel_;
      first_output_ = image * outputs_of(a) * a.channels + channel_;
    } else {
      const int64_t first = unit * plan.planes;
      const int64_t left = a.batch * a.channels - first;
      planes_ = left < plan.planes ? left : plan.planes;
      inner_ = 1;
      whole_ = true;
      position_ = 1;
      channel_ = first % a.channels;
      first_input_ = first * inputs_of(a);
      first_output_ = first * outputs_of(a);
    }
    direct_ = whole_ && a.sent_type == DType::kFloat32;
    rows_ = planes_ * a.windows[0].in * a.windows[1].in;
    sent_row_ = width_.out * inner_;
    total_ = static_cast<Total*>(a.total_out) + first_input_;
    values_ = reinterpret_cast<Value*>(buffers.values);
    row_maxima_ = reinterpret_cast<Value*>(buffers.row_maxima);
    maxima_ = reinterpret_cast<Value*>(buffers.maxima);
    folded_ = reinterpret_cast<Value*>(buffers.folded);
  }

  void run() {
    start();
    pool_rows<false>(nullptr, nullptr);
    pool_columns<false>(0);
    const In* input = static_cast<const In*>(a_.input) + first_input_;
    for (int64_t t = 0; t < a_.time_steps; ++t) {
      const In* now = input + t * a_.input_step;
      pool_rows<true>(now, t + 1 < a_.time_steps ? now + a_.input_step : nullptr);
      pool_columns<true>(t);
    }
  }

 private:
  // Runs body(offset in memory, offset in the unit, count) for each run of adjacent elements of
  // `positions` positions from `position` on.
  template <class Body>
  SNM_INLINE void each_run(int64_t position, int64_t positions, const Body& body) const {
    if (whole_) return body(position * position_, 0, positions * inner_);
    for (int64_t i = 0; i < positions; ++i) {
      body((position + i) * position_, i * inner_, inner_);
    }
  }

  void start() {
    const Total* from = static_cast<const Total*>(a_.total_in);
    each_run(0, rows_ * width_.in, [&](int64_t place, int64_t, int64_t count) {
      for (int64_t j = 0; j < count; ++j) {
        total_[place + j] = from == nullptr ? Total{} : from[first_input_ + place + j];
      }
    });
    if constexpr (kCarries) {
      gather_thresholds();
    } else if constexpr (std::is_same_v<Value, int32_t>) {
      const ThresholdGrid& grid = a_.threshold;
      for (int64_t plane = 0; plane < planes_; ++plane) {
        for (int64_t j = 0; j < sent_row_; ++j) {
          const int64_t channel = (channel_ + plane) % a_.channels + j % inner_;
          b_.sent_theta[plane * sent_row_ + j] = grid.values[channel * grid.channel_step];
        }
      }
    }
  }

  void gather_thresholds() {
    const ThresholdGrid& grid = a_.threshold;
    float* theta = b_.theta;
    for (int64_t plane = 0; plane < planes_; ++plane) {
      const float* own = grid.values + (channel_ + plane) % a_.channels * grid.channel_step;
      for (int64_t d = 0; d < a_.windows[0].in; ++d) {
        for (int64_t h = 0; h < a_.windows[1].in; ++h) {
          for (int64_t w = 0; w < width_.in; ++w) {
            const float* at = own + d * grid.step[0] + h * grid.step[1] + w * grid.step[2];
            for (int64_t c = 0; c < inner_; ++c) *theta++ = at[c * grid.channel_step];
          }
        }
      }
    }
  }

  // Adds a step to the totals, if there is one, and takes the maxima along every row.
  template <bool kAdds>
  void pool_rows(const In* input, const In* next) {
    if (a_.channels_last) {
      for (int64_t r = 0; r < rows_; ++r) {
        const Value* from = values_at<kAdds>(input, next, r * width_.in, width_.in);
        pool_channels(from, row_maxima_ + r * sent_row_);
      }
      return;
    }
    // Rows of one channel are short: all of the unit are added to at once.
    const Value* from = values_at<kAdds>(input, next, 0, rows_ * width_.in);
    if (plan_.flat) return pool_windows(from, row_maxima_, rows_ * width_.out);
    for (int64_t r = 0; r < rows_; ++r) {
      pool_row(from + r * width_.in, row_maxima_ + r * sent_row_);
    }
  }

  // What windows compare of some adjacent positions, after a step is added to their totals.
  template <bool kAdds>
  const Value* values_at(const In* input, const In* next, int64_t position, int64_t positions) {
    // Totals that are the values already need no copy.
    constexpr bool kSame = std::is_same_v<Total, Value> && !kCarries;
    const float* const theta = kCarries ? b_.theta + position * inner_ : nullptr;
    each_run(position, positions, [&](int64_t place, int64_t offset, int64_t count) {
      if (next != nullptr) prefetch<0>(next + place, count);
      if constexpr (kSame) {
        if (whole_) {
          if constexpr (kAdds) accumulate(input + place, total_ + place, count);
          return;
        }
      }
      evaluate<kAdds>(kAdds ? input + place : nullptr, total_ + place,
                      kCarries ? theta + offset : nullptr, values_ + offset, count);
    });
    if constexpr (kSame) {
      if (whole_) return total_ + position * position_;
    }
    return values_;
  }

  static void accumulate(const In* input, Total* total, int64_t count) {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) total[j] = added(total[j], input[j]);
  }

  template <bool kAdds>
  static void evaluate(const In* input, Total* total, const float* theta, Value* values,
                       int64_t count) {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) {
      Total now = total[j];
      if constexpr (kAdds) {
        now = added(now, input[j]);
        total[j] = now;
      }
      value_of(now, kCarries ? theta[j] : 0.0f, values[j]);
    }
  }

  // A row of the input to a row of maxima.
  void pool_row(const Value* from, Value* to) const {
    // Windows [begin, end) have all their taps inside.
    int64_t begin = width_.out;
    int64_t end = width_.out;
    const int64_t room = width_.in + width_.padding - (width_.kernel - 1) * width_.dilation - 1;
    if (!width_.adaptive && room >= 0) {
      const int64_t last = room / width_.stride + 1;
      end = last < width_.out ? last : width_.out;
      const int64_t first = (width_.padding + width_.stride - 1) / width_.stride;
      begin = first < end ? first : end;
    }
    pool_taps(from, 0, begin, to);
    if (begin < end) {
      pool_windows(from + begin * width_.stride - width_.padding, to + begin, end - begin);
    }
    pool_taps(from, end, width_.out, to);
  }

  // Windows [begin, end) of a row, those at its ends.
  void pool_taps(const Value* from, int64_t begin, int64_t end, Value* to) const {
    for (int64_t o = begin; o < end; ++o) {
      const Taps taps = b_.taps[2][o];
      Value most = least<Value>();
      for (int64_t k = 0; k < taps.count; ++k) {
        most = larger(from[taps.first + k * taps.step], most);
      }
      to[o] = most;
    }
  }

  // Windows with all their taps inside.
  void pool_windows(const Value* from, Value* to, int64_t count) const {
    if (width_.kernel == 2 && width_.stride == 2) return slide<2, 2>(from, to, count);
    if (width_.kernel == 3 && width_.stride == 2) return slide<3, 2>(from, to, count);
    if (width_.kernel == 3 && width_.stride == 1) return slide<3, 1>(from, to, count);
    if (width_.kernel == 2 && width_.stride == 1) return slide<2, 1>(from, to, count);
    for (int64_t j = 0; j < count; ++j) {
      Value most = least<Value>();
      const Value* tap = from + j * width_.stride;
      for (int64_t k = 0; k < width_.kernel; ++k) most = larger(tap[k * width_.dilation], most);
      to[j] = most;
    }
  }

  template <int kKernel, int kStride>
  void slide(const Value* from, Value* to, int64_t count) const {
    // A step that the compiler knows lets it load whole vectors.
    if (width_.dilation == 1) {
      slide_by<kKernel, kStride>(from, to, count, 1);
    } else {
      slide_by<kKernel, kStride>(from, to, count, width_.dilation);
    }
  }

  template <int kKernel, int kStride>
  SNM_INLINE static void slide_by(const Value* from, Value* to, int64_t count, int64_t step) {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) {
      Value most = larger(from[j * kStride + step], from[j * kStride]);
      if constexpr (kKernel == 3) most = larger(from[j * kStride + 2 * step], most);
      to[j] = most;
    }
  }

  // A row of positions with adjacent channels to a row of maxima.
  void pool_channels(const Value* from, Value* to) const {
    for (int64_t o = 0; o < width_.out; ++o) {
      const Taps taps = b_.taps[2][o];
      const Value* tap = from + taps.first * inner_;
      fold(tap, taps.count, taps.step * inner_, inner_, to + o * inner_);
    }
  }

  // Elementwise maxima of `rows` rows, `step` apart.
  static void fold(const Value* from, int64_t rows, int64_t step, int64_t count, Value* to) {
    if (rows == 2) return fold_rows<2>(from, from + step, from, count, to);
    if (rows == 3) return fold_rows<3>(from, from + step, from + 2 * step, count, to);
    fold_rows<1>(from, from, from, count, to);
    for (int64_t r = 1; r < rows; ++r) fold_rows<2>(to, from + r * step, from, count, to);
  }

  template <int kRows>
  static void fold_rows(const Value* r0, const Value* r1, const Value* r2, int64_t count,
                        Value* to) {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < count; ++j) to[j] = most_of<kRows>(r0[j], r1[j], r2[j]);
  }

  template <int kRows>
  SNM_INLINE static Value most_of(Value v0, Value v1, Value v2) {
    Value most = v0;
    if constexpr (kRows > 1) most = larger(v1, most);
    if constexpr (kRows > 2) most = larger(v2, most);
    return most;
  }

  // Takes the maxima of every window from those of its rows and sends by how much they changed.
  template <bool kSends>
  void pool_columns(int64_t t) {
    const Windows& depth = a_.windows[0];
    const Windows& height = a_.windows[1];
    int64_t sent = 0;
    for (int64_t plane = 0; plane < planes_; ++plane) {
      const Value* rows = row_maxima_ + plane * depth.in * height.in * sent_row_;
      for (int64_t d = 0; d < depth.out; ++d) {
        const Taps deep = b_.taps[0][d];
        for (int64_t h = 0; h < height.out; ++h, ++sent) {
          const Taps high = b_.taps[1][h];
          const Value* from = rows + (deep.first * height.in + high.first) * sent_row_;
          const int64_t step = high.step * sent_row_;
          int64_t count = high.count;
          if (deep.count > 1 || count > 3) {
            fold(from, count, step, sent_row_, folded_);
            for (int64_t k = 1; k < deep.count; ++k) {
              const Value* layer = from + k * deep.step * height.in * sent_row_;
              for (int64_t r = 0; r < high.count; ++r) {
                fold_rows<2>(folded_, layer + r * step, layer, sent_row_, folded_);
              }
            }
            from = folded_;
            count = 1;
          }
          const Value* second = from + (count > 1 ? step : 0);
          const Value* third = from + (count > 2 ? 2 * step : 0);
          Value* const last = maxima_ + sent * sent_row_;
          if constexpr (!kSends) {
            if (count == 3) fold_rows<3>(from, second, third, sent_row_, last);
            else if (count == 2) fold_rows<2>(from, second, third, sent_row_, last);
            else fold_rows<1>(from, second, third, sent_row_, last);
          } else {
            const float* theta = b_.sent_theta + plane * sent_row_;
            if (count == 3) change<3>(t, sent, from, second, third, theta, last);
            else if (count == 2) change<2>(t, sent, from, second, third, theta, last);
            else change<1>(t, sent, from, second, third, theta, last);
            if (a_.channels_last && !direct_) convert(t, sent, 1);
          }
        }
      }
    }
    // Rows of one channel are short: all of the unit are converted at once.
    if (kSends && !a_.channels_last && !direct_) convert(t, 0, sent);
  }

  // A row of changes, to where it is sent or to where it waits for its conversion.
  template <int kRows>
  SNM_INLINE void change(int64_t t, int64_t row, const Value* r0, const Value* r1, const Value* r2,
                         const float* theta, Value* last) {
    const int64_t waits = a_.channels_last ? 0 : row * sent_row_;
    if (std::is_same_v<Value, int32_t> && a_.sent_type == DType::kInt8) {
      change_by<kRows>(r0, r1, r2, theta, last, reinterpret_cast<int32_t*>(b_.changes) + waits);
    } else {
      float* const to =
          direct_ ? place<float>(t, row) : reinterpret_cast<float*>(b_.changes) + waits;
      change_by<kRows>(r0, r1, r2, theta, last, to);
    }
  }

  template <int kRows, class Out>
  void change_by(const Value* r0, const Value* r1, const Value* r2, const float* theta,
                 Value* last, Out* to) const {
    SNM_INDEPENDENT
    for (int64_t j = 0; j < sent_row_; ++j) {
      const Value most = most_of<kRows>(r0[j], r1[j], r2[j]);
      const Value change = most - last[j];
      last[j] = most;
      if constexpr (std::is_same_v<Value, int32_t> && std::is_same_v<Out, float>) {
        to[j] = carried(change, theta[j]);
      } else {
        to[j] = static_cast<Out>(change);
      }
    }
  }

  // Sends rows of changes in the dtype that is asked for.
  void convert(int64_t t, int64_t row, int64_t rows) const {
    const float* amplitudes = reinterpret_cast<const float*>(b_.changes);
    switch (a_.sent_type) {
      case DType::kInt8:
        return copy_runs(reinterpret_cast<const int32_t*>(b_.changes), t, row, rows,
                         [](int32_t change) { return static_cast<int8_t>(change); });
      case DType::kFloat32:
        return copy_runs(amplitudes, t, row, rows, [](float value) { return value; });
      case DType::kFloat16:
        return copy_runs(amplitudes, t, row, rows,
                         [](float value) { return narrowed<Half>(value); });
      default:
        copy_runs(amplitudes, t, row, rows, [](float value) { return narrowed<BFloat16>(value); });
    }
  }

  // Where the unit's row of windows begins in what is sent at step t.
  template <class Out>
  Out* place(int64_t t, int64_t row) const {
    return static_cast<Out*>(a_.sent) + t * a_.sent_step + first_output_ +
           row * width_.out * position_;
  }

  template <class From, class Convert>
  void copy_runs(const From* from, int64_t t, int64_t row, int64_t rows,
                 const Convert& converted) const {
    using Out = decltype(converted(From{}));
    Out* const to = place<Out>(t, row);
    each_run(0, rows * width_.out, [&](int64_t at, int64_t offset, int64_t count) {
      SNM_INDEPENDENT
      for (int64_t j = 0; j < count; ++j) to[at + j] = converted(from[offset + j]);
    });
  }

  const RunningMaxArguments& a_;
  const RunningMaxPlan& plan_;
  const RunningMaxBuffers& b_;
  const Windows& width_;
  int64_t channel_;       // the unit's first
  int64_t planes_;
  int64_t inner_;
  bool whole_;            // whether all positions of a row are adjacent in memory
  bool direct_;           // whether changes are sent as they are computed
  int64_t position_;      // elements from one position to the next
  int64_t first_input_;
  int64_t first_output_;
  int64_t rows_;
  int64_t sent_row_;
  Total* total_;
  Value* values_;
  Value* row_maxima_;
  Value* maxima_;
  Value* folded_;
};

template <class In, class Total, class Value, bool kCarries>
void run(const RunningMaxArguments& a, int64_t begin, int64_t end, char* memory) {
  const RunningMaxPlan plan = plan_of(a);
  const RunningMaxBuffers buffers = buffers_of(a, plan, memory);
  for (int d = 0; d < 3; ++d) {
    for (int64_t o = 0; o < a.windows[d].out; ++o) buffers.taps[d][o] = taps_of(a.windows[d], o);
  }
  for (int64_t unit = begin; unit < end; ++unit) {
    Unit<In, Total, Value, kCarries>(a, plan, buffers, unit).run();
  }
}

}  // namespace

namespace SNM_ISA {

void pool_units(const RunningMaxArguments& a, int64_t begin, int64_t end, char* memory) {
  switch (a.input_type) {
    case DType::kFloat32: return run<float, float, float, false>(a, begin, end, memory);
    case DType::kFloat16: return run<Half, float, float, false>(a, begin, end, memory);
    case DType::kBFloat16: return run<BFloat16, float, float, false>(a, begin, end, memory);
    default:
      if (a.shared) return run<int8_t, int32_t, int32_t, false>(a, begin, end, memory);
      run<int8_t, int32_t, float, true>(a, begin, end, memory);
  }
}

}  // namespace SNM_ISA
}  // namespace snm
