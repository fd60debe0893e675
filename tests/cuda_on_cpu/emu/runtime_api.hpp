// The part of the CUDA runtime that launchers use. Device memory is host memory, a stream is a
// name, and every call has finished when it returns. FR_EMU_ARCH (90) sets the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "emu/block.hpp"

struct CUstream_st;
using cudaStream_t = CUstream_st*;

enum cudaError_t {  // CUDA's own numbers
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  std::size_t sharedMemPerBlock;
  std::size_t sharedMemPerBlockOptin;
  int l2CacheSize;
  int major;
  int minor;
  int multiProcessorCount;
};

namespace emu {

inline std::uint64_t env_number(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}

// The shared memory of a thread block by compute capability: without and with cudaFuncSetAttribute.
constexpr std::size_t kSharedDefault = 48 << 10;
inline std::size_t shared_optin() {
  switch (env_number("FR_EMU_ARCH", 90)) {
    case 75:
      return 64 << 10;
    case 80:
    case 87:
      return 163 << 10;
    case 86:
    case 89:
    case 120:
    case 121:
      return 99 << 10;
    default:
      return 227 << 10;
  }
}

inline cudaError_t& last_error() {
  static thread_local cudaError_t error = cudaSuccess;
  return error;
}
inline cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess) last_error() = error;
  return error;
}

struct SharedLimits {
  std::mutex mutex;
  std::map<const void*, std::size_t> bytes;
};
inline SharedLimits& shared_limits() {
  static SharedLimits* limits = new SharedLimits;
  return *limits;
}
inline std::size_t shared_limit(const void* kernel) {
  const std::lock_guard<std::mutex> lock(shared_limits().mutex);
  const auto found = shared_limits().bytes.find(kernel);
  return found != shared_limits().bytes.end() ? found->second : kSharedDefault;
}

}  // namespace emu

inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
  }
  return "unrecognized error code";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
  }
  return "unrecognized error code";
}
inline cudaError_t cudaPeekAtLastError() { return emu::last_error(); }
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = emu::last_error();
  emu::last_error() = cudaSuccess;
  return error;
}

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return emu::set_last_error(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return emu::set_last_error(cudaErrorInvalidDevice);
  const int arch = static_cast<int>(emu::env_number("FR_EMU_ARCH", 90));
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = emu::kSharedDefault;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = 4 << 20;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = arch / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = arch % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(emu::shared_optin());
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(emu::shared_optin() + 1024);
      return cudaSuccess;
  }
  return emu::set_last_error(cudaErrorInvalidValue);
}

inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return emu::set_last_error(cudaErrorInvalidDevice);
  *properties = cudaDeviceProp{};
  std::strcpy(properties->name, "CPU emulation");
  properties->totalGlobalMem = std::size_t{8} << 30;
  properties->sharedMemPerBlock = emu::kSharedDefault;
  properties->sharedMemPerBlockOptin = emu::shared_optin();
  cudaDeviceGetAttribute(&properties->l2CacheSize, cudaDevAttrL2CacheSize, 0);
  cudaDeviceGetAttribute(&properties->major, cudaDevAttrComputeCapabilityMajor, 0);
  cudaDeviceGetAttribute(&properties->minor, cudaDevAttrComputeCapabilityMinor, 0);
  return cudaDeviceGetAttribute(&properties->multiProcessorCount, cudaDevAttrMultiProcessorCount,
                                0);
}

template <class Kernel>
inline cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > emu::shared_optin()) {
    return emu::set_last_error(cudaErrorInvalidValue);
  }
  const std::lock_guard<std::mutex> lock(emu::shared_limits().mutex);
  std::size_t& limit = emu::shared_limits().bytes[reinterpret_cast<const void*>(kernel)];
  if (static_cast<std::size_t>(value) < limit) {
    emu::fail("cudaFuncSetAttribute lowers the shared memory of a kernel from " +
              std::to_string(limit) + " to " + std::to_string(value) +
              " bytes: a launch of another thread that needs more would fail");
  }
  limit = static_cast<std::size_t>(value);
  return cudaSuccess;
}

struct cudaFuncAttributes {
  int numRegs;
};
template <class Kernel>
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = cudaFuncAttributes{};
  return cudaSuccess;
}

template <class Kernel>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n_blocks, Kernel*, int,
                                                                 size_t) {
  *n_blocks = 1;
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t n_bytes,
                                   cudaStream_t = nullptr) {
  if (n_bytes != 0) std::memset(to, byte, n_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  if (n_bytes != 0) std::memcpy(to, from, n_bytes);
  return cudaSuccess;
}
