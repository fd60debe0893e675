// Errors that carry values. `FR_CHECK` guards against mistakes of callers and broken promises of
// our own. It stays in release builds: a broken promise is an error, never undefined behaviour.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace fastretrieve {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A caller stopped the running operation (Ctrl-C). Nothing was changed.
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
