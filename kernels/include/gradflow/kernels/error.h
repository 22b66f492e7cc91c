// Errors that cross the library's boundary.
//
// Every error is one line: what was wrong, where, and what would be right. The program maps UserError
// to exit code 2 (the user's mistake) and everything else to exit code 1 (ours).
#pragma once

#include <stdexcept>
#include <string>

namespace gradflow {

// The caller asked for something that cannot be done as asked: a bad specification, a damaged file,
// a device that is absent, a shape that does not fit.
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A promise inside gradflow was broken, or a vendor library failed on arguments that were valid.
class InternalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace gradflow
