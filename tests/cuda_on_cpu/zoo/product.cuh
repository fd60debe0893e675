// The arguments of the matrix products.
#pragma once

#include "zoo.cuh"

struct ProductArgs {
  const int8_t* a;  // [m, dim]
  const int8_t* b;  // [n, dim]
  int m, n, dim;
  int* out;  // [m, n]
  Fault fault;
};
