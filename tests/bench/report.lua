-- What `wrk` says at the end of a slice, as one line for the benchmark: counts, and latencies in microseconds.

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'SLICE {"requests":%d,"duration_us":%d,"p50_us":%.1f,"p99_us":%.1f,"not_ok":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
