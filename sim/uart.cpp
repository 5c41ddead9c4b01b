// A design behind a serial line: ports rx and tx, idle at 1, 8 data bits, no parity, one stop bit.

#include <deque>
#include <utility>

#include "harness.hpp"

namespace {

void Simulation::idle() { top->rx = 1; }

// Sends and receives at once, a bit every `divisor` cycles.
struct Line {
    Simulation* sim;
    std::uint32_t divisor;
    std::deque<std::uint8_t> outgoing, incoming;
    std::uint32_t sent_bits = 0, sent_cycles = 0;    // of the byte on its way to the design
    std::uint32_t heard_bits = 0, heard_cycles = 0;  // of the byte on its way from it
    std::uint32_t heard = 0;
    bool listening = false;
    std::uint64_t framing_errors = 0;
    bool watching = false, event = false;  // event: `busy` or `retired` has changed while watching
    std::uint32_t retired = 0;
    bool busy = false;

    void watch() {
        if (watching && (sim->top->retired != retired || sim->top->busy != busy)) {
            retired = sim->top->retired;
            busy = sim->top->busy;
            event = true;
        }
    }

    void tick() {
        if (!outgoing.empty()) {
            const std::uint32_t frame = (outgoing.front() << 1) | 0x200;  // start, data from bit 0, stop
            sim->top->rx = (frame >> sent_bits) & 1;
            if (++sent_cycles == divisor) {
                sent_cycles = 0;
                if (++sent_bits == 10) {
                    sent_bits = 0;
                    outgoing.pop_front();
                }
            }
        } else {
            sim->top->rx = 1;
        }
        sim->tick();
        watch();
        if (!listening) {
            if (sim->top->tx == 0) {
                listening = true;
                heard = heard_bits = 0;
                heard_cycles = divisor / 2;  // sample in the middle of each bit
            }
        } else if (++heard_cycles == divisor) {
            heard_cycles = 0;
            ++heard_bits;  // 1: the start bit, 2 to 9: data, 10: the stop bit
            if (heard_bits >= 2 && heard_bits <= 9) {
                heard |= static_cast<std::uint32_t>(sim->top->tx) << (heard_bits - 2);
            } else if (heard_bits == 10) {
                if (sim->top->tx) {
                    incoming.push_back(static_cast<std::uint8_t>(heard));
                } else {
                    ++framing_errors;
                }
                listening = false;
            }
        }
    }
};

}  // namespace

extern "C" {

Line* uart_create(Simulation* sim, std::uint32_t divisor) { return new Line{sim, divisor}; }

void uart_destroy(Line* line) { delete line; }

// Queue bytes for the design; time passes in `uart_read` only.
void uart_write(Line* line, const std::uint8_t* data, std::int64_t count) {
    line->outgoing.insert(line->outgoing.end(), data, data + count);
}

// Notice every change of `busy` and `retired` from now on.
void uart_watch(Line* line) {
    line->retired = line->sim->top->retired;
    line->busy = line->sim->top->busy;
    line->watching = true;
}

// Whether there was one since this was last called.
int uart_event(Line* line) { return std::exchange(line->event, false); }

// Let time pass until `count` bytes have come, some have and the line has been quiet for two bytes' time, there is an
// event, or, once all is sent, `limit` cycles have passed. Bytes taken; none when there is an event.
std::int64_t uart_read(Line* line, std::uint8_t* data, std::int64_t count, std::uint64_t limit) {
    std::uint64_t waited = 0, quiet = 0;
    while (static_cast<std::int64_t>(line->incoming.size()) < count && waited < limit && quiet < 20 * line->divisor &&
           !line->event) {
        if (line->outgoing.empty()) ++waited;
        line->tick();
        quiet = line->listening || line->incoming.empty() ? 0 : quiet + 1;
    }
    if (line->event) return 0;
    std::int64_t taken = 0;
    for (; taken < count && !line->incoming.empty(); ++taken) {
        data[taken] = line->incoming.front();
        line->incoming.pop_front();
    }
    return taken;
}

std::uint64_t uart_framing_errors(const Line* line) { return line->framing_errors; }

}
