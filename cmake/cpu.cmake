# The sources of the core and of its CPU backend, and the flags of each instruction set: files of
# their own, of which csrc/cpu/isa.cpp chooses at run time.
set(FR_CSRC ${CMAKE_CURRENT_LIST_DIR}/../csrc)
file(GLOB FR_CPU_SOURCES CONFIGURE_DEPENDS ${FR_CSRC}/core/*.cpp ${FR_CSRC}/cpu/*.cpp ${FR_CSRC}/cpu/*/*.cpp)
string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" FR_PROCESSOR)
if(NOT FR_PROCESSOR MATCHES "x86_64|amd64")
  list(FILTER FR_CPU_SOURCES EXCLUDE REGEX "csrc/cpu/avx")
endif()
if(NOT FR_PROCESSOR MATCHES "aarch64|arm64")
  list(FILTER FR_CPU_SOURCES EXCLUDE REGEX "csrc/cpu/neon")
endif()

# The canonical score is defined by its roundings, so no compiler may contract or reorder them.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>)

set(FR_AVX2 ${FR_CSRC}/cpu/avx2)
set(FR_AVX512 ${FR_CSRC}/cpu/avx512)
set(FR_NEON ${FR_CSRC}/cpu/neon)
set_source_files_properties(${FR_AVX2}/heads.cpp ${FR_AVX2}/kernels.cpp ${FR_AVX2}/scan.cpp PROPERTIES
  COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
# gcc 12 calls its own _mm512_undefined_* uninitialised.
set_source_files_properties(${FR_AVX512}/heads.cpp ${FR_AVX512}/kernels.cpp ${FR_AVX512}/scan.cpp PROPERTIES
  COMPILE_OPTIONS "$<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>;-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mprefer-vector-width=512")
# gcc wants the version of the architecture; other compilers, zig's among them, agree on this.
set(FR_ARM "$<IF:$<CXX_COMPILER_ID:GNU>,-march=armv8.2-a,-mcpu=generic>")
set_source_files_properties(${FR_NEON}/neon.cpp PROPERTIES COMPILE_OPTIONS "${FR_ARM}+dotprod")
set_source_files_properties(${FR_NEON}/i8mm.cpp PROPERTIES COMPILE_OPTIONS "${FR_ARM}+dotprod+i8mm")
