// A stand-in for the CUDA runtime: device memory is memory of the host, every call is checked, and what was not given
// back at the end is told. FAKE_CUDA_FAIL names a call that fails (out of memory), FAKE_CUDA_SM the GPU.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

struct Live {
    std::map<const void*, std::size_t> memory;
    int streams = 0;
    ~Live() {
        if (!memory.empty() || streams != 0) std::fprintf(stderr, "the device was not given back\n");
    }
} live;

bool fails(const char* name) {
    const char* wanted = std::getenv("FAKE_CUDA_FAIL");
    return wanted != nullptr && std::string(wanted) == name;
}

cudaStream_t stream() { return reinterpret_cast<cudaStream_t>(&live); }

bool holds(const void* address, std::size_t count) {
    const auto found = live.memory.find(address);
    return found != live.memory.end() && count <= found->second;
}

}  // namespace

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
    if (fails("cudaGetDeviceProperties")) return cudaErrorMemoryAllocation;
    *prop = cudaDeviceProp{};
    const char* sm = std::getenv("FAKE_CUDA_SM");
    prop->major = 8, prop->minor = 7;
    if (sm) std::sscanf(sm, "%d.%d", &prop->major, &prop->minor);
    std::strcpy(prop->name, "Orin");
    return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMalloc(void** devPtr, size_t size) {
    if (fails("cudaMalloc")) return cudaErrorMemoryAllocation;
    *devPtr = std::calloc(1, size);
    live.memory[*devPtr] = size;
    return cudaSuccess;
}

cudaError_t cudaFree(void* devPtr) {
    if (live.memory.erase(devPtr) != 1) return cudaErrorInvalidValue;
    std::free(devPtr);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* pStream) {
    live.streams++;
    *pStream = stream();
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t given) {
    live.streams--;
    return given == stream() ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaStreamSynchronize(cudaStream_t given) {
    if (fails("cudaStreamSynchronize")) return cudaErrorMemoryAllocation;
    return given == stream() ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t count, cudaMemcpyKind kind, cudaStream_t given) {
    const void* device = kind == cudaMemcpyHostToDevice ? dst : src;
    if (given != stream() || !holds(device, count)) return cudaErrorInvalidValue;
    std::memcpy(dst, src, count);
    return cudaSuccess;
}

}  // extern "C"
