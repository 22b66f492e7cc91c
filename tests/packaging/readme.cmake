# Is the program that README shows the one that is built and run? cmake -DSOURCE=<root> -P readme.cmake
file(READ ${SOURCE}/README.md readme)
file(READ ${SOURCE}/tests/packaging/consumer/main.cpp program)
string(FIND "${readme}" "```cpp\n${program}```" position)
if(position EQUAL -1)
  message(FATAL_ERROR "README.md does not show tests/packaging/consumer/main.cpp as it is: copy it there")
endif()
