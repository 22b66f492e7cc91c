// How long OpenMP's threads spin while they wait for work.
#pragma once

namespace gradflow::app {

// libgomp's threads spin for milliseconds between parallel regions. Alone on the machine that saves a
// wake-up; beside other processes it takes the cores from whoever has work, ours included, and everything
// gets many times slower. The library reads its settings when it is loaded, before main(): so this sets
// GOMP_SPINCOUNT and starts the program anew in the same process (same id, arguments, signals; about 1 ms).
// Does nothing if the user set OMP_WAIT_POLICY or GOMP_SPINCOUNT, which also ends the second round.
void bound_spinning(char** argv);

}  // namespace gradflow::app
