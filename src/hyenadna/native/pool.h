// Threads that sleep while they wait and take tasks one by one.
//
// OpenMP divides a loop into equal shares and spins at its end: beside another busy process the
// share on the busy core holds all others up. Here that core simply takes fewer tasks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

// Bytes that all threads keep between calls.
inline std::atomic<int64_t> &kept_bytes() {
  static std::atomic<int64_t> bytes{0};
  return bytes;
}

// Memory of one thread that is kept from call to call up to a limit, in large pages where it can.
class Scratch {
  char *memory_ = nullptr;
  size_t size_ = 0, used_ = 0;
  void release() {
    if (memory_) {
      munmap(memory_, size_);
      kept_bytes() -= (int64_t)size_;
    }
    memory_ = nullptr;
    size_ = 0;
  }

public:
  static constexpr size_t KEPT = size_t(64) << 20;
  ~Scratch() { release(); }
  // Makes room; everything taken before is void.
  void reserve(size_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    release();
    const size_t page = size_t(2) << 20;
    size_ = (bytes + page - 1) / page * page;
    void *p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      size_ = 0;
      throw std::bad_alloc();
    }
    memory_ = (char *)p;
    kept_bytes() += (int64_t)size_;
#ifdef MADV_HUGEPAGE
    if (size_ > page) madvise(memory_, size_, MADV_HUGEPAGE);
#endif
  }
  template <class T> T *take(long count) {
    T *p = (T *)(memory_ + used_);
    used_ += ((size_t)count * sizeof(T) + 127) / 128 * 128 + 128; // not all on one cache set
    if (used_ > size_) throw std::bad_alloc();
    return p;
  }
  // Everything taken since is void.
  size_t used() const { return used_; }
  void back_to(size_t used) { used_ = used; }
  void trim() {
    if (size_ > KEPT) release();
  }
};

// Memory for the weights of a call in the layout of the inner loops: handed out piece by piece, all of
// it void at the next call, and kept, since fresh pages cost more than the packing.
class Arena {
  struct Part {
    std::unique_ptr<char[]> memory;
    size_t size;
  };
  std::vector<Part> parts_;
  size_t part_ = 0, used_ = 0;
  const bool counted_; // among the bytes kept between calls

public:
  static constexpr size_t PART = size_t(1) << 20;
  explicit Arena(bool counted) : counted_(counted) {}
  ~Arena() {
    if (counted_)
      for (const Part &part : parts_) kept_bytes() -= (int64_t)part.size;
  }
  void reset() { part_ = used_ = 0; }
  template <class T> T *take(long count) {
    const size_t bytes = ((size_t)count * sizeof(T) + 63) / 64 * 64;
    while (part_ < parts_.size() && used_ + bytes > parts_[part_].size) part_++, used_ = 0;
    if (part_ == parts_.size()) {
      const size_t size = bytes + 64 > PART ? bytes + 64 : PART;
      parts_.push_back({std::unique_ptr<char[]>(new char[size]), size});
      if (counted_) kept_bytes() += (int64_t)size;
    }
    char *start = parts_[part_].memory.get();
    const size_t skew = (64 - (size_t)start % 64) % 64;
    char *p = start + skew + used_;
    used_ += bytes;
    if (skew + used_ > parts_[part_].size) { // the last piece of a part that is not aligned
      used_ = parts_[part_].size;
      return take<T>(count);
    }
    return (T *)p;
  }
};
inline Arena *&arena_in_use() {
  static thread_local Arena of_calls(true);
  static thread_local Arena *mine = &of_calls;
  return mine;
}
inline Arena &arena() { return *arena_in_use(); }

// While it lives, what this thread takes from `arena()` comes from another one.
class ArenaScope {
  Arena *const before_;

public:
  explicit ArenaScope(Arena &other) : before_(arena_in_use()) { arena_in_use() = &other; }
  ~ArenaScope() { arena_in_use() = before_; }
  ArenaScope(const ArenaScope &) = delete;
};

// For a task; void when the task ends.
inline Scratch &scratch() {
  static thread_local Scratch mine;
  return mine;
}
// For a whole call, shared by its tasks.
inline Scratch &call_scratch() {
  static thread_local Scratch mine;
  return mine;
}

class Pool {
  struct Job {
    const std::function<void(long)> *work;
    std::atomic<long> next{0};
    long count = 0;
    std::atomic<bool> failed{false};
  };
  std::vector<std::thread> threads_;
  std::mutex mutex_, callers_;
  std::condition_variable wake_, done_;
  Job *job_ = nullptr;
  long generation_ = 0;
  int wanted_ = 0, running_ = 0;

  static void take_tasks(Job &job) {
    for (long i; (i = job.next.fetch_add(1)) < job.count;) {
      try {
        (*job.work)(i);
      } catch (...) {
        job.failed = true;
        job.next = job.count;
      }
    }
  }

  void live() {
    long seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return job_ && generation_ != seen && wanted_ > 0; });
      seen = generation_;
      wanted_--;
      running_++;
      Job *job = job_;
      lock.unlock();
      take_tasks(*job);
      scratch().trim();
      lock.lock();
      if (--running_ == 0) done_.notify_all();
    }
  }

public:
  // work(0) .. work(count - 1), on up to `threads` threads, this one among them.
  void run(long count, int threads, const std::function<void(long)> &work) {
    Job job;
    job.work = &work;
    job.count = count;
    const int helpers = (int)std::min<long>(threads, count) - 1;
    // A second caller (another thread of the program) works alone.
    if (helpers < 1 || !callers_.try_lock()) {
      take_tasks(job);
    } else {
      std::lock_guard<std::mutex> hold(callers_, std::adopt_lock);
      {
        std::lock_guard<std::mutex> lock(mutex_);
        try {
          while ((int)threads_.size() < helpers) threads_.emplace_back([this] { live(); });
        } catch (const std::system_error &) { // no more threads to be had: fewer will do
        }
        job_ = &job;
        wanted_ = helpers;
        generation_++;
      }
      wake_.notify_all();
      take_tasks(job);
      std::unique_lock<std::mutex> lock(mutex_);
      wanted_ = 0; // who has not woken up yet is not needed any more
      done_.wait(lock, [&] { return running_ == 0; });
      job_ = nullptr;
    }
    if (job.failed) throw std::bad_alloc();
  }
};

// The pool of this process; a fork leaves its threads behind, so a child makes its own.
inline Pool &pool() {
  static std::mutex mutex;
  static Pool *mine = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (owner != getpid()) {
    mine = new Pool; // never destroyed: its threads sleep until the process ends
    owner = getpid();
  }
  return *mine;
}

// Halves, quarters … of a range: piece i of `pieces`.
struct Range {
  long start, stop;
};
inline Range piece(long total, long pieces, long i) {
  return {total * i / pieces, total * (i + 1) / pieces};
}
