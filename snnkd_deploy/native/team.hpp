// Threads that wait for the next run, and how they share the operations of one sample.
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

// Something that all threads work on before any goes on: `parts` parts, each taken by who comes first. Nobody waits for a
// thread that has taken none, so that one which the system has set aside does not hold up the others.
struct alignas(64) Stage {
    std::atomic<int> next{0}, done{0};

    template <class F> void pass(int parts, F work) {
        for (int part = next.fetch_add(1); part < parts; part = next.fetch_add(1)) {
            work(part);
            done.fetch_add(1, std::memory_order_release);
        }
        for (int spins = 0; done.load(std::memory_order_acquire) < parts; spins++)
            spins < SPINS ? relax() : std::this_thread::yield();
    }
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

    // Calls work(0), on this thread, and work(1) .. work(count - 1) on others, but for those that come when it has ended.
    // One call at a time.
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
                job_number_.fetch_add(1, std::memory_order_release);
            }
            wake_.notify_all();
        }
        work(0);
        if (count > 1) {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = nullptr;
        }
        for (int spins = 0; count > 1 && active_.load(std::memory_order_acquire) > 0; spins++)
            spins < SPINS ? relax() : std::this_thread::yield();
    }

  private:
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    const std::function<void(int)>* work_ = nullptr;
    int count_ = 0;
    bool over_ = false;
    std::atomic<int> job_number_{0}, active_{0};

    void serve(int number, int seen) {
        while (true) {
            for (int spins = 0; spins < SPINS && job_number_.load(std::memory_order_acquire) == seen; spins++) relax();
            const std::function<void(int)>* work = nullptr;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return job_number_.load() != seen; });
                seen = job_number_.load();
                if (over_) return;
                if (number >= count_ || !work_) continue;
                work = work_;
                active_.fetch_add(1);
            }
            (*work)(number);
            active_.fetch_sub(1, std::memory_order_release);
        }
    }
};

}  // namespace snnkd
