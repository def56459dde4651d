-- For wrk: how it went, as JSON; "-- MILLISECONDS" makes each connection rest for a random time up to that.

local rest = 0

function init(arguments)
  math.randomseed(os.time())
  rest = tonumber(arguments[1] or "0")
  if rest == 0 then
    delay = nil
  end
end

function delay()
  return math.random(0, rest)
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, "p50": %f, "p99": %f}',
    summary.requests, errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
