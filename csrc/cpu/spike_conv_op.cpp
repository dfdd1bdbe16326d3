// The convolution of spikes on the CPU: checks, lists the spikes, splits the outputs over torch's
// threads, registers.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../snm_checks.h"
#include "snm.h"
#include "spike_conv.h"

namespace snm {
namespace {

constexpr const char* kConv = "spike_conv";
constexpr const char* kSnmConv = "snm_conv";
// Spikes under which a thread isn't worth waking, and additions of weights.
constexpr int64_t kScanGrain = 1 << 16;
constexpr int64_t kSumGrain = 1 << 15;
constexpr size_t kAlignment = 64;

using Ints64 = std::vector<int64_t>;

// [T, B, C, H, W] channels_last, time first; what is empty has the strides of one element.
Ints64 channels_last_strides(IntHeaderOnlyArrayRef sizes) {
  const auto some = [&](size_t d) { return std::max<int64_t>(1, sizes[d]); };
  const int64_t row = some(4) * some(2);
  const int64_t image = some(3) * row;
  return {some(1) * image, image, 1, row, some(2)};
}

SpikeConvSize size_along(const char* op, int64_t in, int64_t pool, int64_t kernel, int64_t stride,
                         int64_t padding, int64_t dilation) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  require(pool >= 1 && pool <= most, op, "pool", "an int32 >= 1", pool);
  require(kernel >= 1 && kernel <= most, op, "weight", "with a kernel of at least 1", kernel);
  require(stride >= 1 && stride <= most, op, "stride", "an int32 >= 1", stride);
  require(padding >= 0 && padding <= most, op, "padding", "an int32 >= 0", padding);
  require(dilation >= 1 && dilation <= most / kernel, op, "dilation",
          "an int32 >= 1, and so over the whole kernel", dilation);
  const int64_t pooled = in / pool;
  const int64_t room = pooled + 2 * padding - dilation * (kernel - 1) - 1;
  require(pooled >= 1 && room >= 0, op, "x", "as large as the kernel with its padding", in);
  return {in, pool, pooled, kernel, stride, padding, dilation, room / stride + 1};
}

template <class Number>
constexpr bool kFloats = std::is_same_v<Number, float>;

// The tensors of one run, kept alive while its kernel reads them, and the kernel's arguments.
template <class Number>
class ConvRun {
 public:
  static constexpr ScalarType kType = kFloats<Number> ? ScalarType::Float : ScalarType::Int;
  static constexpr ScalarType kWeightType = kFloats<Number> ? ScalarType::Float : ScalarType::Char;

  ConvRun(const char* op, const Tensor& x, const Tensor& weight, const Tensor& packed,
          const std::optional<Tensor>& bias, IntHeaderOnlyArrayRef stride,
          IntHeaderOnlyArrayRef padding, IntHeaderOnlyArrayRef dilation, int64_t groups,
          IntHeaderOnlyArrayRef pool, bool dense)
      : op_(op), dense_(dense) {
    require(x.dim() == 5 && x.size(0) >= 1, op, "x", "[T, B, C, H, W] with T >= 1",
            shown(x.sizes()));
    require(x.scalar_type() == ScalarType::Char, op, "x", "int8",
            torch::headeronly::toString(x.scalar_type()));
    require(weight.dim() == 4 && weight.scalar_type() == kWeightType, op, "weight",
            "int8 or float32 [K, C / groups, kernel, kernel]", shown(weight.sizes()));
    require(!dense || !kFloats<Number>, op, "dense", "False with a weight of float32", "True");
    require_device("weight", weight, x);
    require(groups >= 1 && weight.size(0) % groups == 0 && weight.size(1) * groups == x.size(2),
            op, "weight", "for the channels of x", shown(weight.sizes()));
    for (const auto& two : {stride, padding, dilation, pool}) {
      require(two.size() == 2, op, "stride, padding, dilation and pool", "two numbers each",
              shown(two));
    }
    SpikeConvArguments<Number>& a = arguments_;
    a.time_steps = x.size(0);
    a.batch = x.size(1);
    a.groups = groups;
    a.in_channels = x.size(2);
    a.out_channels = weight.size(0);
    a.height = size_along(op, x.size(3), pool[0], weight.size(2), stride[0], padding[0],
                          dilation[0]);
    a.width = size_along(op, x.size(4), pool[1], weight.size(3), stride[1], padding[1],
                         dilation[1]);
    a.spikes = static_cast<const int8_t*>(
        keep(aligned(x, channels_last_strides(x.sizes()))).const_data_ptr());
    const int64_t size = dense ? dense_size() : event_size();
    require_device("packed", packed, x);
    require(packed.scalar_type() == kWeightType && packed.dim() == 1 && packed.size(0) == size &&
                packed.is_contiguous(),
            op, "packed",
            std::string(kFloats<Number> ? "float32 [" : "int8 [") + std::to_string(size) +
                "] of pack_spike_weight",
            shown(packed.sizes()));
    a.weight = static_cast<decltype(a.weight)>(keep(packed).const_data_ptr());
    out_sizes_ = {a.time_steps, a.batch, a.out_channels, a.height.out, a.width.out};
    if (bias.has_value()) a.bias = parameter("bias", *bias, a.bias_pixels, x);
  }

  // The sums alone.
  Tensor drive(const Tensor& x) {
    Tensor drive = empty_strided(x, out_sizes_, channels_last_strides(out_sizes_), kType);
    arguments_.drive = drive.mutable_data_ptr<Number>();
    return drive;
  }

  void neurons(const Tensor& x, const Rule& rule, const Tensor& threshold,
               const std::optional<Tensor>& v, const std::optional<Tensor>& m,
               const std::optional<Tensor>& residual) {
    SpikeConvArguments<Number>& a = arguments_;
    a.rule = rule;
    a.threshold = parameter("threshold", threshold, a.threshold_pixels, x);
    const Ints64 strides = channels_last_strides(out_sizes_);
    const Ints64 sizes(out_sizes_.begin() + 1, out_sizes_.end());
    const Ints64 inside(strides.begin() + 1, strides.end());
    v_out = empty_strided(x, sizes, inside, kType);
    m_out = empty_strided(x, sizes, inside, ScalarType::Int);
    if (v.has_value()) a.v_in = like<Number>("v", *v, sizes, inside, kType, x);
    if (m.has_value()) a.m_in = like<int32_t>("m", *m, sizes, inside, ScalarType::Int, x);
    if (residual.has_value()) {
      check_same(op_, "residual", *residual, out_sizes_, kType, x);
      const bool in_place =
          same_places(sizes, slice(residual->strides()), inside) && residual->stride(0) >= 0;
      const Tensor added = in_place ? *residual : aligned(*residual, strides);
      a.residual = keep(added).template const_data_ptr<Number>();
      a.residual_step = added.stride(0);
    }
    a.v_out = v_out.mutable_data_ptr<Number>();
    a.m_out = m_out.mutable_data_ptr<int32_t>();
  }

  Tensor sent(const Tensor& x, bool sends) {
    const Ints64 none{0};
    const Ints64 one{1};
    if (!sends) return empty_strided(x, none, one, ScalarType::Char);
    Tensor sent = empty_strided(x, out_sizes_, channels_last_strides(out_sizes_), ScalarType::Char);
    arguments_.sent = static_cast<int8_t*>(sent.mutable_data_ptr());
    return sent;
  }

  void run(const Tensor& x) {
    if (arguments_.batch * arguments_.out_channels == 0) return;
    if constexpr (!kFloats<Number>) {
      if (dense_) return run_densely(x);
    }
    run_events(x);
  }

  Tensor v_out;
  Tensor m_out;

 private:
  // How many numbers the packed weight has.
  int64_t event_size() {
    SpikeConvArguments<Number>& a = arguments_;
    const int64_t outputs = a.out_channels / a.groups;
    const int64_t over = outputs % (2 * kWeightBlock);
    const bool wide = !kFloats<Number> && (over == 0 || over > kWeightBlock);
    a.block = wide ? 2 * kWeightBlock : kWeightBlock;
    const int64_t inputs = a.height.kernel * a.width.kernel * (a.in_channels / a.groups);
    require(inputs <= std::numeric_limits<uint32_t>::max() / a.block, op_, "weight",
            "of less than 4 GiB a block of outputs", inputs);
    return a.groups * ((outputs + a.block - 1) / a.block) * a.block * inputs;
  }

  // The same of products of matrices, for which small groups become one.
  int64_t dense_size() {
    SpikeConvArguments<Number>& a = arguments_;
    if (a.out_channels == 0) return 0;
    const int64_t all = a.groups;
    a.depthwise = all > 1 && all == a.in_channels && all == a.out_channels;
    if (a.depthwise) {
      a.groups = 1;
      const DensePlan plan = dense_plan_of(a);
      return plan.taps * plan.panels * kPanel;
    }
    int64_t merged = 1;
    for (int64_t n = 2; n <= std::min(all, kPanel) && merged * a.out_channels / all < kPanel; ++n) {
      if (all % n == 0) merged = n;
    }
    a.groups = all / merged;
    const DensePlan plan = dense_plan_of(a);
    return a.groups * plan.panels * kPanel * plan.depth;
  }

  void run_densely(const Tensor& x) {
    SpikeConvArguments<Number>& a = arguments_;
    const CpuMatrix& matrix = cpu_isa().matrix;
    Tensor pooled = scratch(x, 0);
    if (a.height.pool * a.width.pool > 1) {
      const Ints64 sizes{rows_of(a), a.width.pooled, a.in_channels};
      const Ints64 strides{a.width.pooled * a.in_channels, a.in_channels, 1};
      pooled = empty_strided(x, sizes, strides, ScalarType::Char);
      auto* const sums = static_cast<int8_t*>(pooled.mutable_data_ptr());
      std::atomic<bool> fits{true};
      torch::stable::parallel_for(0, sizes[0], row_grain(), [&](int64_t begin, int64_t end) {
        if (!matrix.windows(a, begin, end, sums)) fits = false;
      });
      require(fits, op_, "x", "with sums of windows that fit in int8, as dense=True has it",
              "larger ones");
      a.spikes = sums;
      a.height.in = a.height.pooled;
      a.width.in = a.width.pooled;
    }
    const DensePlan plan = dense_plan_of(a);
    const int64_t bytes = dense_buffers_of(plan, nullptr).bytes;
    torch::stable::parallel_for(0, plan.units, 1, [&](int64_t begin, int64_t end) {
      with_memory(bytes, [&](char* memory) { matrix.convolve(a, begin, end, memory); });
    });
  }

  void run_events(const Tensor& x) const {
    const SpikeConvArguments<Number>& a = arguments_;
    const CpuIsa& isa = cpu_isa();
    const int64_t pixels = pixels_of(a);
    const int64_t rows = rows_of(a);
    const Tensor starts = scratch(x, 2 * (pixels + 1));
    Events events{};
    events.starts[0] = static_cast<uint32_t*>(starts.mutable_data_ptr());
    events.starts[1] = events.starts[0] + pixels + 1;
    const int64_t grain = row_grain();
    torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      isa.count(a, events, begin, end);
    });
    int64_t total[2];
    int64_t most = 0;
    for (int sign = 0; sign < 2; ++sign) {
      uint32_t* const at = events.starts[sign];
      at[0] = 0;
      uint32_t most_here = 0;
      int64_t sum = 0;
      for (int64_t p = 1; p <= pixels; ++p) {
        most_here = std::max(most_here, at[p]);
        sum += at[p];
        at[p] = static_cast<uint32_t>(sum);
      }
      require(sum < std::numeric_limits<uint32_t>::max(), op_, "x",
              "of less than 4 billion spikes; run fewer steps at once", sum);
      total[sign] = sum;
      most += most_here * a.height.kernel * a.width.kernel;
    }
    const Tensor listed = scratch(x, total[0] + total[1] + 2 * kListPadding);
    events.events[0] = static_cast<uint32_t*>(listed.mutable_data_ptr());
    events.events[1] = events.events[0] + total[0] + kListPadding;
    torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      isa.list(a, events, begin, end);
    });
    const SpikeConvPlan plan = plan_of(a);
    const int64_t bytes = buffers_of(a, plan, most, nullptr).bytes;
    const int64_t sums = (total[0] + total[1]) / std::max<int64_t>(1, pixels) *
                             a.height.kernel * a.width.kernel + a.block;
    const int64_t unit_sums = sums * plan.tile * a.time_steps;
    const int64_t unit_grain = std::max<int64_t>(1, kSumGrain / unit_sums);
    torch::stable::parallel_for(0, plan.units, unit_grain, [&](int64_t begin, int64_t end) {
      with_memory(bytes, [&](char* memory) {
        if constexpr (kFloats<Number>) {
          isa.convolve_floats(a, events, most, begin, end, memory);
        } else {
          isa.convolve_integers(a, events, most, begin, end, memory);
        }
      });
    });
  }

  // Rows of pixels that are worth a thread, to look at.
  int64_t row_grain() const {
    const SpikeConvArguments<Number>& a = arguments_;
    const int64_t spikes = a.height.pool * a.width.in * a.in_channels;
    return std::max<int64_t>(1, kScanGrain / std::max<int64_t>(1, spikes));
  }

  template <class Run>
  static void with_memory(int64_t bytes, Run run) {
    size_t room = static_cast<size_t>(bytes) + kAlignment;
    const std::unique_ptr<char[]> owned(new char[room]);
    void* memory = owned.get();
    std::align(kAlignment, static_cast<size_t>(bytes), memory, room);
    run(static_cast<char*>(memory));
  }

  const Tensor& keep(const Tensor& tensor) { return kept_.emplace_back(tensor); }

  void require_device(const char* argument, const Tensor& given, const Tensor& x) const {
    require(given.device() == x.device(), op_, argument, "on the spikes' device",
            "another device");
  }

  static Tensor scratch(const Tensor& x, int64_t count) {
    const Ints64 sizes{count};
    const Ints64 one{1};
    return empty_strided(x, sizes, one, ScalarType::Int);
  }

  static Tensor aligned(const Tensor& tensor, const Ints64& strides) {
    if (same_places(tensor.sizes(), tensor.strides(), strides)) return tensor;
    Tensor copy = empty_strided(tensor, tensor.sizes(), strides, tensor.scalar_type());
    return torch::stable::copy_(copy, tensor);
  }

  template <class T>
  const T* like(const char* argument, const Tensor& given, const Ints64& sizes,
                const Ints64& strides, ScalarType type, const Tensor& x) {
    check_same(op_, argument, given, sizes, type, x);
    return keep(aligned(given, strides)).template const_data_ptr<T>();
  }

  // [K], or [H, W, K] of the outputs.
  const Number* parameter(const char* argument, const Tensor& given, int64_t& pixels,
                          const Tensor& x) {
    const SpikeConvArguments<Number>& a = arguments_;
    const Ints64 shared{a.out_channels};
    const Ints64 own{a.height.out, a.width.out, a.out_channels};
    const bool fits = equal(given.sizes(), shared) || equal(given.sizes(), own);
    require(fits && given.scalar_type() == kType && given.is_contiguous(), op_, argument,
            std::string(kFloats<Number> ? "contiguous float32 " : "contiguous int32 ") +
                shown(shared) + " or " + shown(own),
            shown(given.sizes()));
    require_device(argument, given, x);
    pixels = given.dim() == 1 ? 1 : a.height.out * a.width.out;
    return keep(given).template const_data_ptr<Number>();
  }

  const char* op_;
  bool dense_;
  SpikeConvArguments<Number> arguments_{};
  Ints64 out_sizes_;
  std::vector<Tensor> kept_;
};

// Calls run() with an argument of the kind of number that the weight has.
template <class Run>
auto of_weight(const Tensor& weight, Run run) {
  return weight.scalar_type() == ScalarType::Float ? run(float{}) : run(int32_t{});
}

Tensor spike_conv(Tensor x, Tensor weight, Tensor packed, std::optional<Tensor> bias,
                  Ints64 stride, Ints64 padding, Ints64 dilation, int64_t groups, Ints64 pool,
                  bool dense) {
  return of_weight(weight, [&](auto number) {
    ConvRun<decltype(number)> run(kConv, x, weight, packed, bias, stride, padding, dilation, groups,
                                  pool, dense);
    Tensor drive = run.drive(x);
    run.run(x);
    return drive;
  });
}

std::tuple<Tensor, Tensor, Tensor> snm_conv(
    Tensor x, Tensor weight, Tensor packed, Tensor threshold, std::optional<Tensor> v,
    std::optional<Tensor> m, std::optional<Tensor> bias, std::optional<Tensor> residual,
    Ints64 stride, Ints64 padding, Ints64 dilation, int64_t groups, Ints64 pool, bool dense,
    double v_init, std::optional<double> negative_threshold, bool strict, int64_t max_spikes,
    int64_t count_min, int64_t count_max, bool sends) {
  const Rule rule = checked_rule(kSnmConv, v_init, negative_threshold, strict, max_spikes,
                                 count_min, count_max);
  return of_weight(weight, [&](auto number) {
    ConvRun<decltype(number)> run(kSnmConv, x, weight, packed, bias, stride, padding, dilation,
                                  groups, pool, dense);
    run.neurons(x, rule, threshold, v, m, residual);
    Tensor sent = run.sent(x, sends);
    run.run(x);
    return std::tuple<Tensor, Tensor, Tensor>{sent, run.v_out, run.m_out};
  });
}

}  // namespace
}  // namespace snm

STABLE_TORCH_LIBRARY_IMPL(snm_kernels, CPU, library) {
  library.impl("spike_conv", TORCH_BOX(&snm::spike_conv));
  library.impl("snm_conv", TORCH_BOX(&snm::snm_conv));
}
