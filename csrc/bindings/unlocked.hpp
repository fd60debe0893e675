// Native work without the GIL, stopped by Ctrl-C.
#pragma once
#include <pybind11/pybind11.h>

#include <exception>

#include "core/cancel.hpp"

namespace fastretrieve::bindings {

// True when Ctrl-C or another signal asks the call to stop; the exception is then set.
inline bool signal_arrived() {
  const pybind11::gil_scoped_acquire locked;
  return PyErr_CheckSignals() != 0;
}

// An interruption becomes the exception that the signal handler raised.
template <class Work>
void unlocked(const Work& work) {
  // A thread's first exception takes memory, and without any the C library aborts: take it now.
  (void)std::uncaught_exceptions();
  try {
    const pybind11::gil_scoped_release released;
    Cancel cancel(signal_arrived);
    work(cancel);
  } catch (const Interrupted&) {
    if (PyErr_Occurred()) throw pybind11::error_already_set();
    throw;
  }
}

}  // namespace fastretrieve::bindings
