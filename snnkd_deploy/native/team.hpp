// Threads that wait for the next run, and a barrier between the operations of one sample.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace snnkd {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

constexpr int SPINS = 4000;  // some tens of microseconds

// Every one of `count` threads waits for the others. Where there are fewer processors than threads it yields to them.
class Barrier {
  public:
    explicit Barrier(int count) : count_(count) {}

    void wait() {
        if (count_ == 1) return;
        const int turn = turn_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
            arrived_.store(0, std::memory_order_relaxed);
            turn_.store(turn + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; spins++)
            spins < SPINS ? relax() : std::this_thread::yield();
    }

  private:
    const int count_;
    std::atomic<int> arrived_{0}, turn_{0};
};

class Team {
  public:
    ~Team() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            over_ = true;
            job_number_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (std::thread& one : threads_) one.join();
    }

    // Calls work(0), on this thread, and work(1) .. work(count - 1) on others. One call at a time.
    void run(int count, const std::function<void(int)>& work) {
        while (int(threads_.size()) < count - 1) {
            const int number = int(threads_.size()) + 1, seen = job_number_.load();
            threads_.emplace_back([this, number, seen] { serve(number, seen); });
        }
        if (count > 1) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
                work_ = &work;
                count_ = count;
                left_.store(int(threads_.size()), std::memory_order_relaxed);
                job_number_.fetch_add(1, std::memory_order_release);
            }
            wake_.notify_all();
        }
        work(0);
        for (int spins = 0; count > 1 && left_.load(std::memory_order_acquire) > 0; spins++)
            spins < SPINS ? relax() : std::this_thread::yield();
    }

  private:
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    const std::function<void(int)>* work_ = nullptr;
    int count_ = 0;
    bool over_ = false;
    std::atomic<int> job_number_{0}, left_{0};

    void serve(int number, int seen) {
        while (true) {
            for (int spins = 0; spins < SPINS && job_number_.load(std::memory_order_acquire) == seen; spins++) relax();
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return job_number_.load() != seen; });
            }
            seen = job_number_.load(std::memory_order_acquire);
            if (over_) return;
            if (number < count_) (*work_)(number);
            left_.fetch_sub(1, std::memory_order_acq_rel);
        }
    }
};

}  // namespace snnkd
