# The CUDA backend: compiled by nvcc (ON, AUTO), by g++ for tests (EMU), or left out (OFF).
#
# AUTO builds it where a CUDA compiler works: nvcc on PATH, under CUDA_HOME or CUDA_PATH, in
# /usr/local/cuda, or what CUDACXX names. The runtime is linked statically, so one build imports on
# machines with and without a GPU.
set(FR_CUDA_SOURCES
  csrc/cuda/backend.cu csrc/cuda/encode.cu csrc/cuda/finish.cu csrc/cuda/scan_dp4a.cu csrc/cuda/scan_mma.cu
  csrc/cuda/scan_wgmma.cu csrc/cuda/select.cu csrc/cuda/transform.cu)

if(FR_CUDA STREQUAL "EMU")
  if("${SKBUILD_STATE}" STREQUAL "wheel" AND NOT DEFINED ENV{FR_ALLOW_EMU})
    message(FATAL_ERROR "FR_CUDA=EMU builds the emulation, which no wheel may contain: build with FR_CUDA=ON, AUTO or OFF (tests that install it set FR_ALLOW_EMU=1)")
  endif()
  message(STATUS "fastretrieve: CUDA emulated on the CPU; for tests, never for a wheel")
  add_library(fr_cuda OBJECT ${FR_CUDA_SOURCES})
  set_source_files_properties(${FR_CUDA_SOURCES} PROPERTIES LANGUAGE CXX)
  target_compile_options(fr_cuda PRIVATE -x c++ -Wno-unknown-pragmas)
  if(FR_SANITIZE)
    target_compile_options(fr_cuda PRIVATE -O1)  # unrolled kernels take minutes at -O3
  endif()
  target_include_directories(fr_cuda PRIVATE csrc tests/cuda_on_cpu)
  target_compile_definitions(fr_cuda PRIVATE FR_EMU=1 FR_CUDA_ARCHITECTURES="90a emulated")
  target_compile_definitions(_core PRIVATE FR_WITH_CUDA=1 FR_EMU=1)
  target_include_directories(_core PRIVATE tests/cuda_on_cpu)
  target_sources(_core PRIVATE $<TARGET_OBJECTS:fr_cuda>)
  return()
endif()

if(FR_CUDA STREQUAL "OFF")
  message(STATUS "fastretrieve: CUDA left out")
  return()
endif()

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(FR_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(FR_NVCC)
    set(CMAKE_CUDA_COMPILER ${FR_NVCC} CACHE FILEPATH "the CUDA compiler")
  endif()
endif()
if(NOT FR_CUDA_ARCHS)
  # Hopper's own code carries wgmma; PTX of the last serves what comes after.
  set(FR_CUDA_ARCHS "75-real;80-real;86-real;89-real;90a-real;100-real;120")
endif()
set(CMAKE_CUDA_ARCHITECTURES ${FR_CUDA_ARCHS}) # before CUDA is enabled
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(FR_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FR_CUDA=ON, but no working CUDA compiler was found: put nvcc on PATH or set CUDACXX")
  endif()
  message(STATUS "fastretrieve: CUDA left out, no CUDA compiler was found")
  return()
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
message(STATUS "fastretrieve: CUDA for ${FR_CUDA_ARCHS}")

string(REPLACE ";" " " FR_CUDA_ARCHITECTURES "${FR_CUDA_ARCHS}")
add_library(fr_cuda OBJECT ${FR_CUDA_SOURCES})
set_target_properties(fr_cuda PROPERTIES
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
target_include_directories(fr_cuda PRIVATE csrc)
# The score is defined by its roundings: nothing is fused unless the source says so.
target_compile_options(fr_cuda PRIVATE --fmad=false -lineinfo -Xfatbin=-compress-all)
target_compile_definitions(fr_cuda PRIVATE FR_CUDA_ARCHITECTURES="${FR_CUDA_ARCHITECTURES}")
target_compile_definitions(_core PRIVATE FR_WITH_CUDA=1)
target_sources(_core PRIVATE $<TARGET_OBJECTS:fr_cuda>)
target_link_libraries(_core PRIVATE CUDA::cudart_static)
