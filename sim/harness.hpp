// C interface to a Verilated design with ports clk, rst, busy and retired; loaded with ctypes by sim/model.py.
// The clock loops are here so that no Python runs in a cycle. A source that includes this drives the other ports: it
// defines Simulation::idle.

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_syms.h"

namespace {

struct Variable {
    std::string name;  // scope and name, separated by dots
    void* data;
    std::uint32_t bytes;  // of an element
    std::uint32_t bits;   // of an element
    std::uint32_t depth;  // elements; 1 for a signal
};

struct Blocks {
    const void* one;
    const void* other;
    std::uint64_t bytes;
};

std::string printed;  // by the design since this was last looked at

struct Simulation {
    VerilatedContext context;
    std::unique_ptr<Vtop> top;
    std::uint64_t cycles = 0;
    std::vector<Variable> variables;
    std::string failure;  // the first broken assertion nobody has asked for

    Simulation() : top{std::make_unique<Vtop>(&context, "top")} {
        top->clk = 0;
        top->rst = 1;
        idle();
        top->eval();
        for (const auto& scope : *context.scopeNameMap()) {
            if (!scope.second->varsp()) continue;
            for (auto& entry : *scope.second->varsp()) {
                const VerilatedVar& var = entry.second;
                std::uint32_t depth = 1;
                for (int i = 0; i < var.udims(); ++i) depth *= var.elements(i + 1);
                const std::uint32_t bits = var.entBits();
                variables.push_back({std::string{scope.first} + "." + entry.first, var.datap(), var.entSize(), bits, depth});
            }
        }
    }

    ~Simulation() {
        // the destructors look the thread's context up: it must be this one, not one that is gone
        Verilated::threadContextp(&context);
        top->final();
        top.reset();
        Verilated::threadContextp(Verilated::defaultContextp());
    }

    void idle();  // inputs as they are when nobody uses them

    void tick() {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
        ++cycles;
        if (!printed.empty()) {
            if (failure.empty()) failure = "cycle " + std::to_string(cycles) + ": " + printed;
            printed.clear();
        }
    }
};

}  // namespace

extern "C" {

int sim_print(const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    const int length = std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!printed.empty()) printed += "; ";
    printed += text;
    return length;
}

Simulation* sim_create() { return new Simulation; }

void sim_destroy(Simulation* sim) { delete sim; }

std::uint64_t sim_cycles(const Simulation* sim) { return sim->cycles; }

void sim_tick(Simulation* sim, std::uint64_t count) {
    while (count-- && sim->failure.empty()) sim->tick();
}

// Hold reset for `count` cycles.
void sim_reset(Simulation* sim, std::uint64_t count) {
    sim->idle();
    sim->top->rst = 1;
    sim_tick(sim, count);
    sim->top->rst = 0;
    sim->top->eval();
    printed.clear();
    sim->failure.clear();  // of the state before
}

int sim_busy(const Simulation* sim) { return sim->top->busy; }

std::uint32_t sim_retired(const Simulation* sim) { return sim->top->retired; }

// Run until `retired` changes or `busy` is 0. Cycles taken, or -1 when there were `limit` of them without either.
std::int64_t sim_run(Simulation* sim, std::uint64_t limit) {
    const std::uint32_t before = sim->top->retired;
    for (std::uint64_t i = 0; i < limit; ++i) {
        if (!sim->top->busy || sim->top->retired != before) return static_cast<std::int64_t>(i);
        sim->tick();
        if (!sim->failure.empty()) return static_cast<std::int64_t>(i + 1);
    }
    return (!sim->top->busy || sim->top->retired != before) ? static_cast<std::int64_t>(limit) : -1;
}

// The first broken assertion since this was last called, "" when there is none.
const char* sim_failure(Simulation* sim) {
    static std::string text;
    text = std::move(sim->failure);
    sim->failure.clear();
    return text.c_str();
}

// Whether the two of each of `count` pairs have the same bytes.
int sim_equal(const Blocks* pairs, std::uint64_t count) {
    for (; count; ++pairs, --count) {
        if (std::memcmp(pairs->one, pairs->other, pairs->bytes)) return 0;
    }
    return 1;
}

std::uint32_t sim_variables(const Simulation* sim) { return static_cast<std::uint32_t>(sim->variables.size()); }

// Variable `index`: name, address, bytes and bits of an element, elements.
const char* sim_variable(const Simulation* sim, std::uint32_t index, void** data, std::uint32_t* bytes, std::uint32_t* bits,
                         std::uint32_t* depth) {
    const Variable& variable = sim->variables[index];
    *data = variable.data;
    *bytes = variable.bytes;
    *bits = variable.bits;
    *depth = variable.depth;
    return variable.name.c_str();
}

}
