// Every operator's schema, and nothing else.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(snm_kernels, library) {
  library.def(
      "snm(Tensor x, Tensor threshold, Tensor? v, Tensor? m, Tensor? bias, Tensor? residual, "
      "float v_init, float? negative_threshold, bool strict, int max_spikes, int count_min, "
      "int count_max, ScalarType? spikes_dtype) -> (Tensor spikes, Tensor v, Tensor m)");
  library.def(
      "snm_out(Tensor x, Tensor threshold, Tensor? v, Tensor? m, Tensor? bias, "
      "Tensor? residual, float v_init, float? negative_threshold, bool strict, int max_spikes, "
      "int count_min, int count_max, Tensor(a!) out) -> (Tensor v, Tensor m)");
  library.def(
      "snm_counted(Tensor x, Tensor threshold, Tensor? v, Tensor? m, Tensor? bias, "
      "Tensor? residual, Tensor? negative, float v_init, float? negative_threshold, bool strict, "
      "int max_spikes, int count_min, int count_max, ScalarType? spikes_dtype) "
      "-> (Tensor spikes, Tensor v, Tensor m, Tensor negative)");
  library.def(
      "snm_counted_out(Tensor x, Tensor threshold, Tensor? v, Tensor? m, Tensor? bias, "
      "Tensor? residual, Tensor? negative, float v_init, float? negative_threshold, bool strict, "
      "int max_spikes, int count_min, int count_max, Tensor(a!) out) "
      "-> (Tensor v, Tensor m, Tensor negative)");
  library.def(
      "running_max_pool(Tensor x, Tensor? threshold, Tensor? total, int[] kernel_size, "
      "int[] stride, int[] padding, int[] dilation, bool ceil_mode, ScalarType sent_dtype) "
      "-> (Tensor spikes, Tensor total)");
  library.def(
      "adaptive_running_max_pool(Tensor x, Tensor? threshold, Tensor? total, int[] output_size, "
      "ScalarType sent_dtype) -> (Tensor spikes, Tensor total)");
  library.def(
      "spike_conv(Tensor x, Tensor weight, Tensor packed, Tensor? bias, int[] stride, "
      "int[] padding, int[] dilation, int groups, int[] pool, bool dense) -> Tensor");
  library.def(
      "snm_conv(Tensor x, Tensor weight, Tensor packed, Tensor threshold, Tensor? v, Tensor? m, "
      "Tensor? bias, Tensor? residual, int[] stride, int[] padding, int[] dilation, int groups, "
      "int[] pool, bool dense, float v_init, float? negative_threshold, bool strict, int max_spikes, "
      "int count_min, int count_max, bool sends) -> (Tensor spikes, Tensor v, Tensor m)");
}
