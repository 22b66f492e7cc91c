// Errors that users see: of the right type, one line, and saying what they must say.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "gradflow/kernels/error.h"

namespace gradflow::test {

template <class Error = UserError, class Action>
void expect_error(Action&& action, const std::string& part) {
  try {
    action();
    ADD_FAILURE() << "no error; expected one that says: " << part;
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find(part), std::string::npos) << "got: " << text << "\nexpected in it: " << part;
    EXPECT_EQ(text.find('\n'), std::string::npos) << "more than one line: " << text;
  }
}

}  // namespace gradflow::test
