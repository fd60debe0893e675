// Operations on whole rows, written once for every instruction set.
//
// A file of kernels includes this inside its anonymous namespace, after its own `Lanes`: eight
// float64 that one or a few instructions add and multiply. It provides
//
//   zero, all, add, subtract, multiply, divide   arithmetic, each lane rounded by itself
//   add_product(a, b, sum)                       of float32 factors, whose product is exact
//   tree                                         the lanes added pairwise: ((0+1)+(2+3))+...
//   Part, part_of(n)                             which of eight elements a row still has
//   load<DType>, load_wide                       elements i to i+7 of a row; +0 beyond its end
//   store, store_wide                            the elements within the row, as float32, float64
//   kRowsTogether, prefetch_row                  rows scored at once, so that additions overlap
//   kTileSide                                    rows of either side whose products fit registers

template <DType kType, Sums kWhat, int kRows>
void score_rows(const ScoreArgs& args, int64_t row) {
  Lanes sums[kRows], squares[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sums[r] = squares[r] = zero();
  for (int64_t i = 0; i < args.dim; i += kLanes) {
    const Part part = part_of(args.dim - i);
    const Lanes q = load<DType::float32>(args.query, i, part);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Lanes x = load<kType>(args.rows[row + r], i, part);
      if (kWhat == Sums::squared_difference) {  // not exact, so never fused
        const Lanes difference = subtract(q, x);
        sums[r] = add(sums[r], multiply(difference, difference));
      } else {
        sums[r] = add_product(q, x, sums[r]);
        if (kWhat == Sums::product_and_square) squares[r] = add_product(x, x, squares[r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    args.sums[row + r] = tree(sums[r]);
    if (kWhat == Sums::product_and_square) args.squares[row + r] = tree(squares[r]);
  }
}

template <DType kType, Sums kWhat>
void score_all(const ScoreArgs& args) {
  const int64_t bytes = args.dim * (kType == DType::float32 ? 4 : 2);
  int64_t row = 0;
  for (; row + kRowsTogether <= args.n_rows; row += kRowsTogether) {
    for (int64_t ahead = row + kRowsTogether; ahead < row + 2 * kRowsTogether; ++ahead)
      if (ahead < args.n_rows) prefetch_row(args.rows[ahead], bytes);
    score_rows<kType, kWhat, kRowsTogether>(args, row);
  }
  for (; row < args.n_rows; ++row) score_rows<kType, kWhat, 1>(args, row);
}

template <DType kType>
void score_typed(const ScoreArgs& args) {
  switch (args.what) {
    case Sums::product:
      return score_all<kType, Sums::product>(args);
    case Sums::product_and_square:
      return score_all<kType, Sums::product_and_square>(args);
    case Sums::squared_difference:
      return score_all<kType, Sums::squared_difference>(args);
  }
}

void score(const ScoreArgs& args) {
  switch (args.dtype) {
    case DType::float32:
      return score_typed<DType::float32>(args);
    case DType::float16:
      return score_typed<DType::float16>(args);
    case DType::bfloat16:
      return score_typed<DType::bfloat16>(args);
  }
}

template <int kLeft, int kRight>
void product_tile(const ProductArgs& args, int64_t left, int64_t right) {
  Lanes sums[kLeft][kRight];
#pragma GCC unroll 4
  for (int l = 0; l < kLeft; ++l)
#pragma GCC unroll 4
    for (int r = 0; r < kRight; ++r) sums[l][r] = zero();
  const Part whole = part_of(kLanes);
  for (int64_t i = 0; i < args.padded_dim; i += kLanes) {
    Lanes x[kLeft];
#pragma GCC unroll 4
    for (int l = 0; l < kLeft; ++l)
      x[l] = load_wide(args.left + (left + l) * args.padded_dim, i, whole);
#pragma GCC unroll 4
    for (int r = 0; r < kRight; ++r) {
      const Lanes y = load_wide(args.right + (right + r) * args.padded_dim, i, whole);
#pragma GCC unroll 4
      for (int l = 0; l < kLeft; ++l) sums[l][r] = add_product(x[l], y, sums[l][r]);
    }
  }
#pragma GCC unroll 4
  for (int l = 0; l < kLeft; ++l)
#pragma GCC unroll 4
    for (int r = 0; r < kRight; ++r)
      args.sums[(left + l) * args.n_right + right + r] = tree(sums[l][r]);
}

template <int kLeft>
void product_rows(const ProductArgs& args, int64_t left) {
  int64_t right = 0;
  for (; right + kTileSide <= args.n_right; right += kTileSide)
    product_tile<kLeft, kTileSide>(args, left, right);
  for (; right < args.n_right; ++right) product_tile<kLeft, 1>(args, left, right);
}

void products(const ProductArgs& args) {
  int64_t left = 0;
  for (; left + kTileSide <= args.n_left; left += kTileSide) product_rows<kTileSide>(args, left);
  for (; left < args.n_left; ++left) product_rows<1>(args, left);
}

template <DType kType>
void widen_typed(const void* x, int64_t dim, float* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Part part = part_of(dim - i);
    store(out, i, part, load<kType>(x, i, part));
  }
}

void widen(const void* x, DType dtype, int64_t dim, float* out) {
  switch (dtype) {
    case DType::float32:
      return widen_typed<DType::float32>(x, dim, out);
    case DType::float16:
      return widen_typed<DType::float16>(x, dim, out);
    case DType::bfloat16:
      return widen_typed<DType::bfloat16>(x, dim, out);
  }
}

void centre(const float* x, const float* mean, int64_t dim, double* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Part part = part_of(dim - i);
    Lanes v = load<DType::float32>(x, i, part);
    if (mean) v = subtract(v, load<DType::float32>(mean, i, part));
    store_wide(out, i, part, v);
  }
}

double square_sum(const double* x, int64_t dim) {
  Lanes sum = zero();
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Lanes v = load_wide(x, i, part_of(dim - i));
    sum = add(sum, multiply(v, v));
  }
  return tree(sum);
}

void weigh(double* x, int64_t dim, double norm, double weight) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Part part = part_of(dim - i);
    store_wide(x, i, part, multiply(divide(load_wide(x, i, part), all(norm)), all(weight)));
  }
}

void divide_row(const double* x, int64_t dim, double norm, float* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Part part = part_of(dim - i);
    store(out, i, part, divide(load_wide(x, i, part), all(norm)));
  }
}
