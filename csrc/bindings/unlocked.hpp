// Native work without the GIL, stopped by Ctrl-C.
#pragma once
#include <pybind11/pybind11.h>

#include <exception>

#include "core/cancel.hpp"

namespace fastretrieve::bindings {

// True if Ctrl-C or another signal asks the call to stop. The exception is then set.
inline bool signal_arrived() {
  const pybind11::gil_scoped_acquire locked;
  return PyErr_CheckSignals() != 0;
}

// Runs work(cancel) without the GIL. An interruption becomes the exception of the signal handler.
template <class Work>
void unlocked(const Work& work) {
  // A thread's first exception allocates memory, and without any the C library aborts. So allocate
  // it now.
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
