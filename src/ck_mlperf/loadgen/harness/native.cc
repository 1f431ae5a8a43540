// LoadGen's C++ interface for ctypes: it hands over pointers where the Python module makes lists.
//
// native_build.py compiles this with LoadGen's own sources, native.py drives it.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <type_traits>
#include <vector>

#include "loadgen.h"
#include "query_sample.h"
#include "query_sample_library.h"
#include "system_under_test.h"
#include "test_settings.h"
#include "version.h"

namespace {

using mlperf::QuerySample;
using mlperf::QuerySampleIndex;
using mlperf::QuerySampleResponse;
using mlperf::TestSettings;

// native.py has the same layouts as numpy's dtypes.
static_assert(sizeof(QuerySample) == 16 && offsetof(QuerySample, index) == 8, "QuerySample");
static_assert(sizeof(QuerySampleResponse) == 32 && offsetof(QuerySampleResponse, data) == 8 &&
                  offsetof(QuerySampleResponse, size) == 16 &&
                  offsetof(QuerySampleResponse, n_tokens) == 24,
              "QuerySampleResponse");

// Pointers are good during a call only.
struct Callbacks {
  void (*issue_one)(uint64_t id, uint64_t index);
  void (*issue)(const QuerySample* samples, size_t count);
  void (*flush)();
  void (*load)(const QuerySampleIndex* indices, size_t count);
  void (*unload)(const QuerySampleIndex* indices, size_t count);
};

class System : public mlperf::SystemUnderTest {
 public:
  explicit System(const Callbacks& callbacks) : callbacks_(callbacks) {}
  const std::string& Name() override { return name_; }
  void IssueQuery(const std::vector<QuerySample>& samples) override {
    if (samples.size() == 1) {
      callbacks_.issue_one(samples[0].id, samples[0].index);
    } else {
      callbacks_.issue(samples.data(), samples.size());
    }
  }
  void FlushQueries() override { callbacks_.flush(); }

 private:
  const Callbacks callbacks_;
  const std::string name_ = "ck-mlperf";
};

class Library : public mlperf::QuerySampleLibrary {
 public:
  Library(const Callbacks& callbacks, size_t total, size_t loadable)
      : callbacks_(callbacks), total_(total), loadable_(loadable) {}
  const std::string& Name() override { return name_; }
  size_t TotalSampleCount() override { return total_; }
  size_t PerformanceSampleCount() override { return loadable_; }
  void LoadSamplesToRam(const std::vector<QuerySampleIndex>& samples) override {
    callbacks_.load(samples.data(), samples.size());
  }
  void UnloadSamplesFromRam(const std::vector<QuerySampleIndex>& samples) override {
    callbacks_.unload(samples.data(), samples.size());
  }

 private:
  const Callbacks callbacks_;
  const size_t total_, loadable_;
  const std::string name_ = "ck-mlperf";
};

template <typename Field>
bool Assign(Field* field, double real, uint64_t whole) {
  if (std::is_floating_point<Field>::value) {
    *field = static_cast<Field>(real);
  } else {
    *field = static_cast<Field>(whole);
  }
  return true;
}

}  // namespace

#define CK_EXPORT extern "C" __attribute__((visibility("default")))

CK_EXPORT const char* ck_version() { return mlperf::LoadgenVersion().c_str(); }
CK_EXPORT const char* ck_shim_sha256() { return CK_SHIM_SHA256; }
CK_EXPORT TestSettings* ck_new_settings() { return new TestSettings(); }
CK_EXPORT void ck_delete_settings(TestSettings* settings) { delete settings; }

// Sets a field by the name that the Python module gives it; false: there is none. A field takes
// `real` or `whole` as its type is; enumerations are whole numbers.
CK_EXPORT bool ck_set(TestSettings* settings, const char* name, double real, uint64_t whole) {
#define CK_NAMED(key, field) \
  if (!std::strcmp(name, key)) return Assign(&settings->field, real, whole);
#define CK_FIELD(field) CK_NAMED(#field, field)
  CK_FIELD(scenario) CK_FIELD(mode)
  CK_FIELD(single_stream_expected_latency_ns) CK_FIELD(single_stream_target_latency_percentile)
  CK_FIELD(multi_stream_expected_latency_ns) CK_FIELD(multi_stream_target_latency_percentile)
  CK_FIELD(multi_stream_samples_per_query) CK_FIELD(server_target_qps)
  CK_FIELD(server_target_latency_ns) CK_FIELD(server_target_latency_percentile)
  CK_FIELD(server_coalesce_queries) CK_FIELD(server_find_peak_qps_decimals_of_precision)
  CK_FIELD(server_find_peak_qps_boundary_step_size) CK_FIELD(server_max_async_queries)
  CK_FIELD(server_num_issue_query_threads) CK_FIELD(offline_expected_qps)
  CK_FIELD(sample_concatenate_permutation) CK_FIELD(min_duration_ms) CK_FIELD(max_duration_ms)
  CK_FIELD(min_query_count) CK_FIELD(max_query_count) CK_FIELD(qsl_rng_seed)
  CK_FIELD(sample_index_rng_seed) CK_FIELD(schedule_rng_seed) CK_FIELD(accuracy_log_rng_seed)
  CK_FIELD(accuracy_log_probability) CK_FIELD(accuracy_log_sampling_target) CK_FIELD(test05)
  CK_FIELD(test05_qsl_rng_seed) CK_FIELD(test05_sample_index_rng_seed)
  CK_FIELD(test05_schedule_rng_seed) CK_FIELD(print_timestamps) CK_FIELD(performance_issue_unique)
  CK_FIELD(performance_issue_same) CK_FIELD(performance_issue_same_index)
  CK_FIELD(performance_sample_count_override) CK_FIELD(accuracy_sample_count_override)
  CK_FIELD(use_token_latencies) CK_NAMED("ttft_latency", server_ttft_latency)
  CK_NAMED("tpot_latency", server_tpot_latency) CK_FIELD(infer_token_latencies)
  CK_FIELD(token_latency_scaling_factor)
  return false;
}

// Runs a test, by log_dir's audit.config if it has one. Returns what LoadGen threw, else null.
CK_EXPORT const char* ck_start(const TestSettings* settings, const char* log_dir, size_t total,
                               size_t loadable, const Callbacks* callbacks) try {
  System system(*callbacks);
  Library library(*callbacks, total, loadable);
  mlperf::LogSettings logs;
  logs.log_output.outdir = log_dir;
  logs.enable_trace = false;
  mlperf::StartTest(&system, &library, *settings, logs, std::string(log_dir) + "/audit.config");
  return nullptr;
} catch (const std::exception& error) {
  static const std::string message = error.what();
  return message.c_str();
}

CK_EXPORT void ck_complete(QuerySampleResponse* responses, size_t count) {
  mlperf::QuerySamplesComplete(responses, count);
}

CK_EXPORT void ck_complete_one(uint64_t id, int32_t label) {
  QuerySampleResponse response(id, reinterpret_cast<uintptr_t>(&label), sizeof label);
  mlperf::QuerySamplesComplete(&response, 1);
}
