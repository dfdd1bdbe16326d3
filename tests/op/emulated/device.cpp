// The device that is emulated: one queue, one block at a time, one thread at a time.
#include <cuda_pipeline.h>
#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace snm {

// Dynamic shared memory, under the name that the kernels give it.
alignas(16) unsigned char ring[48 << 10];

}  // namespace snm

namespace emulated {
namespace {

constexpr int kNobody = -1;

struct Copy {
  unsigned char* shared;
  const unsigned char* global;
  size_t bytes;
  size_t zeros;
};

int multiprocessors = 132;
std::mt19937 order;
std::string error;
std::map<unsigned, int64_t> launches;

// Of the launch, the block and the thread that run.
size_t shared_bytes;
std::vector<int> owners;
std::deque<std::vector<Copy>> groups;
std::vector<Copy> open;

// A large number, or NaN, in every type.
void poison(unsigned char* at, size_t bytes) { std::memset(at, 0x7f, bytes); }

std::vector<unsigned> shuffled(unsigned count) {
  std::vector<unsigned> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0u);
  std::shuffle(numbers.begin(), numbers.end(), order);
  return numbers;
}

void run_thread(const std::function<void()>& thread) {
  groups.clear();
  open.clear();
  // No thread sees what another one left: nothing orders the two.
  poison(snm::ring, shared_bytes);
  thread();
  size_t left = open.size();
  for (const auto& group : groups) left += group.size();
  if (left > 0) fault("ends with ", left, " copies under way");
}

void check_launchable(const cudaLaunchConfig_t& config) {
  const auto flat = [](dim3 size) { return size.y == 1 && size.z == 1 && size.x > 0; };
  if (!flat(config.gridDim) || !flat(config.blockDim) || config.blockDim.x > 1024) {
    throw std::runtime_error("a launch of " + std::to_string(config.gridDim.x) + " blocks of " +
                             std::to_string(config.blockDim.x) + " threads");
  }
  if (config.dynamicSmemBytes > sizeof(snm::ring)) {
    throw std::runtime_error("a launch with " + std::to_string(config.dynamicSmemBytes) +
                             " bytes of shared memory");
  }
}

}  // namespace

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& thread) try {
  check_launchable(config);
  ++launches[config.blockDim.x];
  shared_bytes = config.dynamicSmemBytes;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  ASAN_UNPOISON_MEMORY_REGION(snm::ring, sizeof(snm::ring));
  ASAN_POISON_MEMORY_REGION(snm::ring + shared_bytes, sizeof(snm::ring) - shared_bytes);
  for (const unsigned block : shuffled(gridDim.x)) {
    owners.assign(shared_bytes, kNobody);
    blockIdx.x = block;
    for (const unsigned number : shuffled(blockDim.x)) {
      threadIdx.x = number;
      run_thread(thread);
    }
  }
  return cudaSuccess;
} catch (const std::exception& raised) {
  error = raised.what();
  return cudaErrorLaunchFailure;
}

void check_launch() {
  if (error.empty()) return;
  throw std::runtime_error("emulated CUDA: " + std::exchange(error, {}));
}

}  // namespace emulated

void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes, size_t zeros) {
  using namespace emulated;
  auto* to = static_cast<unsigned char*>(shared);
  if (bytes != 4 && bytes != 8 && bytes != 16) fault("a copy of ", bytes, " bytes");
  if (zeros > bytes) fault("a copy of ", bytes, " bytes with ", zeros, " zeros");
  if (to < snm::ring || to + bytes > snm::ring + shared_bytes) {
    fault("a copy to byte ", to - snm::ring, " of ", shared_bytes, " in shared memory");
  }
  check_aligned(shared, bytes, "a copy");
  check_aligned(global, bytes, "a copy");
  const int self = static_cast<int>(threadIdx.x);
  for (size_t i = 0; i < bytes; ++i) {
    int& owner = owners[to - snm::ring + i];
    if (owner != kNobody && owner != self) {
      fault("a copy to byte ", to - snm::ring + i, " of shared memory, which is thread ", owner,
            "'s");
    }
    owner = self;
  }
  poison(to, bytes);
  open.push_back({to, static_cast<const unsigned char*>(global), bytes, zeros});
}

void __pipeline_commit() { emulated::groups.push_back(std::exchange(emulated::open, {})); }

void __pipeline_wait_prior(size_t count) {
  using namespace emulated;
  for (; groups.size() > count; groups.pop_front()) {
    for (const Copy& copy : groups.front()) {
      std::memcpy(copy.shared, copy.global, copy.bytes - copy.zeros);
      std::memset(copy.shared + copy.bytes - copy.zeros, 0, copy.zeros);
    }
  }
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  if (attribute != cudaDevAttrMultiProcessorCount) return cudaErrorInvalidValue;
  *value = emulated::multiprocessors;
  return cudaSuccess;
}

EXPORTED int aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

// To be called before the first launch, which asks for the multiprocessors once.
EXPORTED void emulated_set(int multiprocessors, unsigned seed) {
  emulated::multiprocessors = multiprocessors;
  emulated::order.seed(seed);
}

// Launches so far with so many threads in a block.
EXPORTED int64_t emulated_launches(unsigned threads) { return emulated::launches[threads]; }
