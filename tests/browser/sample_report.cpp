// Writes the report of the sample study, for tests that look at it from outside: sample_report DIR
#include <cstdio>
#include <exception>

#include "apps/report/write.h"
#include "apps/sample_study.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: sample_report DIR\n");
    return 2;
  }
  try {
    gradflow::app::write_report(gradflow::app::sample_study(), argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sample_report: %s\n", error.what());
    return 1;
  }
  return 0;
}
