// Running sums over a ring of rows in shared memory, and the mistakes that a ring invites.
#include <cuda_pipeline.h>

#include <cstdio>
#include <string>
#include <vector>

#include "../../../csrc/cuda/launch.cuh"

namespace emulated {

void check_launch();

}  // namespace emulated

namespace snm {

constexpr int kThreads = 32;
constexpr int kWidth = 4;
constexpr int kAhead = 4;
constexpr int kSteps = 11;
constexpr int kRow = 2 * kThreads * kWidth;

const std::vector<std::string> kMistakes{
    "none",
    "waits for one row too few",
    "refills a place before it is read",
    "writes over a row that is asked for",
    "takes another thread's place",
    "asks past the ring",
    "asks for misaligned bytes",
    "leaves a row under way",
    "reads past the ring",
};

__global__ void add_up(float* rows, int mistake) {
  extern __shared__ __align__(16) unsigned char ring[];
  const auto makes = [&](const char* what) { return kMistakes[mistake] == what; };
  float* const row = rows + (blockIdx.x * kThreads + threadIdx.x) * kWidth;
  const bool lost = makes("takes another thread's place") && threadIdx.x == 1;
  float* const place = reinterpret_cast<float*>(ring) + (lost ? 0 : threadIdx.x) * kWidth;
  constexpr int kPlace = kThreads * kWidth;
  const auto ask = [&](int t) {
    const int k = makes("asks past the ring") ? t : t % kAhead;
    const int shift = makes("asks for misaligned bytes") ? 1 : 0;
    if (t < kSteps) __pipeline_memcpy_async(place + k * kPlace, row + t * kRow + shift, 16);
    __pipeline_commit();
  };
  for (int t = 0; t < kAhead; ++t) ask(t);
  float sums[kWidth] = {};
  for (int t = 0; t < kSteps; ++t) {
    __pipeline_wait_prior(makes("waits for one row too few") ? kAhead : kAhead - 1);
    if (makes("refills a place before it is read")) ask(t + kAhead);
    for (int i = 0; i < kWidth; ++i) sums[i] += place[t % kAhead * kPlace + i];
    if (makes("reads past the ring")) sums[0] += place[kAhead * kPlace];
    if (!makes("refills a place before it is read")) ask(t + kAhead);
    const int to = makes("writes over a row that is asked for") && t + 1 < kSteps ? t + 1 : t;
    for (int i = 0; i < kWidth; ++i) row[to * kRow + i] = sums[i];
  }
  __pipeline_wait_prior(0);
  if (makes("leaves a row under way")) ask(0);
}

std::string run(int mistake) {
  std::vector<float> rows(kSteps * kRow), expected(kRow);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 7);
  for (size_t i = 0; i < rows.size(); ++i) expected[i % kRow] += rows[i];
  launch(add_up, 2, kThreads, kAhead * kThreads * kWidth * sizeof(float), nullptr, rows.data(),
         mistake);
  try {
    emulated::check_launch();
  } catch (const std::exception& error) {
    return error.what();
  }
  const std::vector<float> sums(rows.end() - kRow, rows.end());
  return sums == expected ? "right" : "wrong";
}

}  // namespace snm

int main(int, char** arguments) {
  for (size_t i = 0; i < snm::kMistakes.size(); ++i) {
    if (snm::kMistakes[i] == arguments[1]) std::puts(snm::run(static_cast<int>(i)).c_str());
  }
}
