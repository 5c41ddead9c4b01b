// A design behind AXI4-Lite: ports s_axi_*.

#include "harness.hpp"

namespace {

constexpr unsigned TRANSFER_LIMIT = 100000;  // cycles without a response after which a transfer is given up

void Simulation::idle() {
    top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_arvalid = 0;
    top->s_axi_bready = top->s_axi_rready = 0;
    top->s_axi_awprot = top->s_axi_arprot = 0;
}

// Write one word; 1 when it was taken, 0 when refused, -1 when the design did not answer.
int transfer(Simulation* sim, std::uint32_t address, std::uint32_t word, std::uint32_t strobe) {
    Vtop& top = *sim->top;
    top.s_axi_awaddr = address & 0xffffff;
    top.s_axi_wdata = word;
    top.s_axi_wstrb = strobe;
    top.s_axi_awvalid = top.s_axi_wvalid = top.s_axi_bready = 1;
    for (unsigned waited = 0; waited < TRANSFER_LIMIT; ++waited) {
        const bool aw = top.s_axi_awvalid && top.s_axi_awready;
        const bool w = top.s_axi_wvalid && top.s_axi_wready;
        const bool refused = top.s_axi_bresp != 0;
        const bool done = top.s_axi_bvalid;
        sim->tick();
        if (aw) top.s_axi_awvalid = 0;
        if (w) top.s_axi_wvalid = 0;
        if (done) top.s_axi_bready = 0;
        if (aw || w || done) top.eval();
        if (done) return !refused;
    }
    sim->idle();
    return -1;
}

}  // namespace

extern "C" {

// Write `count` words from byte address `address` up. Index of the first one refused (the rest is not sent), `count` when
// all were taken, -1 when the design did not answer. `strobe` is that of every word.
std::int64_t sim_write(Simulation* sim, std::uint32_t address, const std::uint32_t* words, std::int64_t count,
                       std::uint32_t strobe) {
    for (std::int64_t i = 0; i < count; ++i) {
        const int taken = transfer(sim, address + 4 * static_cast<std::uint32_t>(i), words[i], strobe);
        if (taken != 1) return taken ? -1 : i;
    }
    return count;
}

// The same while a program runs, word i after `gaps[i]` cycles of rest; in `*done` the words taken. Stops early, with 0,
// `grace` cycles after an instruction has retired, behind the word under way; 1 when all were taken, 2 when one was
// refused, -1 when the design did not answer.
std::int64_t sim_load(Simulation* sim, std::uint32_t address, const std::uint32_t* words, const std::uint32_t* gaps,
                      std::int64_t count, std::uint64_t grace, std::int64_t* done) {
    const auto retired = sim->top->retired;
    std::uint64_t last = sim->cycles + grace;  // once one has retired, the last cycle in which a word may begin
    const auto over = [&] {
        if (sim->top->retired == retired) last = sim->cycles + grace;
        return sim->cycles > last;
    };
    for (*done = 0; *done < count; ++*done) {
        for (std::uint32_t rest = gaps[*done]; rest && !over(); --rest) sim->tick();
        if (over()) return 0;
        const int taken = transfer(sim, address + 4 * static_cast<std::uint32_t>(*done), words[*done], 0xf);
        if (taken != 1) return taken ? -1 : 2;
    }
    return 1;
}

// Read `count` words from byte address `address` up; returns as `sim_write`.
std::int64_t sim_read(Simulation* sim, std::uint32_t address, std::uint32_t* words, std::int64_t count) {
    Vtop& top = *sim->top;
    for (std::int64_t i = 0; i < count; ++i) {
        top.s_axi_araddr = (address + 4 * static_cast<std::uint32_t>(i)) & 0xffffff;
        top.s_axi_arvalid = top.s_axi_rready = 1;
        bool done = false;
        for (unsigned waited = 0; !done; ++waited) {
            if (waited == TRANSFER_LIMIT) return sim->idle(), -1;
            const bool ar = top.s_axi_arvalid && top.s_axi_arready;
            const bool refused = top.s_axi_rresp != 0;
            words[i] = top.s_axi_rdata;
            done = top.s_axi_rvalid;
            sim->tick();
            if (ar) top.s_axi_arvalid = 0;
            if (done) top.s_axi_rready = 0;
            if (ar || done) top.eval();
            if (done && refused) return i;
        }
    }
    return count;
}

}
