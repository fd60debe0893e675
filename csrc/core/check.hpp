// Errors that carry values. `FR_CHECK` guards what a caller may get wrong and what we promised
// ourselves; it stays in release builds, because a broken promise must be an error and never
// undefined behaviour.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace fastretrieve {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A caller asked for the running operation to stop (Ctrl-C); nothing was changed.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

}  // namespace fastretrieve

#define FR_CHECK(condition, ...)                         \
  do {                                                   \
    if (!(condition)) ::fastretrieve::fail(__VA_ARGS__); \
  } while (0)
