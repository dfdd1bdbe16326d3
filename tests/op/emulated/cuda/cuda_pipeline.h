// Copies into shared memory that are under way until they are waited for. Here they are made as
// late as they may be, and until then what they write to is poisoned.
#pragma once

#include <cuda_runtime.h>

void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes, size_t zeros = 0);
void __pipeline_commit();
void __pipeline_wait_prior(size_t groups);
