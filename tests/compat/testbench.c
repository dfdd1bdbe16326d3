/* Runs the network of a header, network.h, that snm.compat.testbench wrote.

   testbench INPUT IMAGES STEPS OUTPUT: INPUT holds int32 images. OUTPUT gets for each image, at each
   step, of each layer of neurons its spikes, int8, and membranes, int32; then the counts of those
   that have any, int32; then the network's output, int64; then logits, float, if it has them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

static int64_t *values[SNM_VALUES];
static int32_t *membranes[SNM_LAYERS], *counts[SNM_LAYERS];
static int64_t *totals[SNM_LAYERS];
static float logits[SNM_OUTPUT_SIZE];

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *room(size_t elements, size_t bytes) {
  void *made = calloc(elements, bytes);
  if (made == NULL) fail("no memory");
  return made;
}

/* Whether a number fits into so many bytes. */
static int fits(int64_t number, int bytes) {
  if (bytes == 8) return 1;
  int64_t most = ((int64_t)1 << (8 * bytes - 1)) - 1;
  return -most - 1 <= number && number <= most;
}

/* The sum of the window of a value in channel c at place (y, x). */
static int64_t pooled(const snm_layer *layer, const int64_t *in, int c, int y, int x) {
  int64_t sum = 0;
  for (int i = y * layer->pool[0]; i < (y + 1) * layer->pool[0]; i++)
    for (int j = x * layer->pool[1]; j < (x + 1) * layer->pool[1]; j++)
      sum += in[((int64_t)c * layer->height + i) * layer->width + j];
  return sum;
}

static int64_t convolved(const snm_layer *layer, const int64_t *in, int k, int y, int x, int steps) {
  int own = layer->channels / layer->groups, group = k / (layer->out_channels / layer->groups);
  int height = layer->height / layer->pool[0], width = layer->width / layer->pool[1];
  int64_t sum = layer->bias ? (int64_t)layer->bias[k] * steps : 0;
  const int8_t *weight = layer->weight + (int64_t)k * own * layer->kernel[0] * layer->kernel[1];
  for (int c = 0; c < own; c++)
    for (int i = 0; i < layer->kernel[0]; i++)
      for (int j = 0; j < layer->kernel[1]; j++, weight++) {
        int row = y * layer->stride[0] - layer->padding[0] + i * layer->dilation[0];
        int column = x * layer->stride[1] - layer->padding[1] + j * layer->dilation[1];
        if (0 <= row && row < height && 0 <= column && column < width)
          sum += *weight * pooled(layer, in, group * own + c, row, column);
      }
  return sum;
}

/* The largest total of a window. */
static int64_t largest(const snm_layer *layer, const int64_t *total, int c, int y, int x) {
  const int32_t *rows = layer->windows + 2 * y;
  const int32_t *columns = layer->windows + 2 * (layer->out_height + x);
  int64_t most = INT64_MIN;
  for (int i = rows[0]; i < rows[1]; i += layer->dilation[0])
    for (int j = columns[0]; j < columns[1]; j += layer->dilation[1]) {
      int64_t here = total[((int64_t)c * layer->height + i) * layer->width + j];
      if (here > most) most = here;
    }
  return most;
}

static void pool(const snm_layer *layer, int number) {
  const int64_t *in = values[layer->in];
  int64_t *total = totals[number], *out = values[layer->out];
  int64_t inputs = (int64_t)layer->channels * layer->height * layer->width, at = 0;
  for (int turn = 0; turn < 2; turn++) {
    at = 0;
    for (int c = 0; c < layer->out_channels; c++)
      for (int y = 0; y < layer->out_height; y++)
        for (int x = 0; x < layer->out_width; x++, at++)
          out[at] = largest(layer, total, c, y, x) - (turn ? out[at] : 0);
    for (int64_t i = 0; turn == 0 && i < inputs; i++) total[i] += in[i];
  }
}

static void fire(const snm_layer *layer, int number) {
  for (int i = 0; i < layer->size; i++) {
    int32_t threshold = layer->threshold[i / layer->threshold_shared];
    int32_t lower = layer->lower[i / layer->threshold_shared];
    int32_t count = counts[number][i];
    uint32_t sum = (uint32_t)membranes[number][i] + (uint32_t)values[layer->in][i];
    if (layer->other >= 0) sum += (uint32_t)values[layer->other][i];
    if (layer->bias) sum += (uint32_t)layer->bias[i / layer->bias_shared];
    int32_t u = (int32_t)sum, s = 0;
    if (threshold < INT32_MAX && u >= threshold && count < layer->count_max) {
      s = u / threshold;
      if (s > layer->max_spikes) s = layer->max_spikes;
      if (s > (int64_t)layer->count_max - count) s = layer->count_max - count;
    } else if (u < lower && count > layer->count_min) {
      s = -1;
    }
    membranes[number][i] = (int32_t)(sum - (uint32_t)s * (uint32_t)threshold);
    counts[number][i] = count + s;
    values[layer->out][i] = s;
    if (layer->counts >= 0) values[layer->counts][i] = count + s;
  }
}

static void compute(const snm_layer *layer, int number, int steps) {
  const int64_t *in = values[layer->in], *other = layer->other < 0 ? NULL : values[layer->other];
  int64_t *out = layer->out < 0 ? NULL : values[layer->out];
  if (layer->part != SNM_AT_THE_END) steps = 1;
  switch (layer->kind) {
    case SNM_NEURONS: fire(layer, number); break;
    case SNM_MAX_POOL: pool(layer, number); break;
    case SNM_SUM:
      for (int i = 0; i < layer->size; i++) out[i] = in[i] + other[i];
      break;
    case SNM_SCALE:
      for (int i = 0; i < layer->size; i++)
        out[i] = layer->factor[i / (layer->height * layer->width)] * in[i];
      break;
    case SNM_READOUT:
      for (int i = 0; i < layer->size; i++)
        logits[i] = (float)((double)in[i] * layer->unit[i] / steps);
      break;
    case SNM_CONV:
    case SNM_LINEAR:
    case SNM_SUM_POOL:
      for (int k = 0; k < layer->out_channels; k++)
        for (int y = 0; y < layer->out_height; y++)
          for (int x = 0; x < layer->out_width; x++)
            *out++ = layer->kind == SNM_SUM_POOL ? pooled(layer, in, k, y, x)
                                                 : convolved(layer, in, k, y, x, steps);
      break;
    default: fail("an unknown kind of layer");
  }
  if (layer->out < 0) return;
  if (layer->size != snm_values[layer->out].size) fail("a layer's size is not its value's");
  for (int i = 0; i < layer->size; i++)
    if (!fits(values[layer->out][i], snm_values[layer->out].bytes)) fail("a value leaves its bytes");
}

/* Computes the layers of a part. */
static void part(int which, int steps) {
  for (int number = 0; number < SNM_LAYERS; number++)
    if (snm_layers[number].part == which) compute(&snm_layers[number], number, steps);
}

static void put(const void *from, size_t bytes, size_t elements, FILE *file) {
  if (fwrite(from, bytes, elements, file) != elements) fail("cannot write");
}

static void run(int steps, FILE *file) {
  for (int number = 0; number < SNM_LAYERS; number++) {
    const snm_layer *layer = &snm_layers[number];
    if (layer->kind == SNM_NEURONS) {
      memset(counts[number], 0, sizeof(int32_t) * layer->size);
      for (int i = 0; i < layer->size; i++)
        membranes[number][i] = layer->start[i / layer->threshold_shared];
    } else if (layer->kind == SNM_MAX_POOL) {
      memset(totals[number], 0, sizeof(int64_t) * snm_values[layer->in].size);
    }
  }
  part(SNM_ONCE, steps);
  for (int t = 0; t < steps; t++) {
    part(SNM_EVERY_STEP, steps);
    for (int number = 0; number < SNM_LAYERS; number++) {
      const snm_layer *layer = &snm_layers[number];
      if (layer->kind != SNM_NEURONS) continue;
      for (int i = 0; i < layer->size; i++) {
        int8_t spike = (int8_t)values[layer->out][i];
        put(&spike, 1, 1, file);
      }
      put(membranes[number], sizeof(int32_t), layer->size, file);
    }
  }
  part(SNM_AT_THE_END, steps);
  for (int number = 0; number < SNM_LAYERS; number++)
    if (snm_layers[number].kind == SNM_NEURONS && snm_layers[number].counts >= 0)
      put(counts[number], sizeof(int32_t), snm_layers[number].size, file);
  put(values[SNM_OUTPUT], sizeof(int64_t), SNM_OUTPUT_SIZE, file);
  if (snm_layers[SNM_LAYERS - 1].kind == SNM_READOUT)
    put(logits, sizeof(float), SNM_OUTPUT_SIZE, file);
}

int main(int argc, char **argv) {
  if (argc != 5) fail("testbench INPUT IMAGES STEPS OUTPUT");
  FILE *input = fopen(argv[1], "rb"), *output = fopen(argv[4], "wb");
  if (input == NULL || output == NULL) fail("cannot open a file");
  int images = atoi(argv[2]), steps = atoi(argv[3]);
  for (int i = 0; i < SNM_VALUES; i++) values[i] = room(snm_values[i].size, sizeof(int64_t));
  for (int number = 0; number < SNM_LAYERS; number++) {
    const snm_layer *layer = &snm_layers[number];
    membranes[number] = room(layer->size, sizeof(int32_t));
    counts[number] = room(layer->size, sizeof(int32_t));
    totals[number] = room(snm_values[layer->in].size, sizeof(int64_t));
  }
  for (int image = 0; image < images; image++) {
    for (int i = 0; i < SNM_INPUT_SIZE; i++) {
      int32_t pixel;
      if (fread(&pixel, sizeof pixel, 1, input) != 1) fail("too few images");
      values[SNM_INPUT][i] = pixel;
    }
    run(steps, output);
  }
  return fclose(output) == 0 ? 0 : 1;
}
