// Included before Verilator's runtime: what the design prints goes to the harness. It prints broken assertions only.

#pragma once

#define VL_PRINTF sim_print
extern "C" int sim_print(const char* format, ...);
