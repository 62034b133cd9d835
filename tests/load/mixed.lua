-- Sends the requests that a file lists, in turn, and counts the answers by second and status.
-- A line is the path, the name of a header field and its value, with tabs in between; without a name no field is sent.
-- The file is read again every second.

local file, read_at, turn, requests = nil, 0, 0, {}

local function read()
  local listed = {}
  for line in io.lines(file) do
    local path, field, value = line:match("^(.-)\t(.-)\t(.*)$")
    local headers = {}
    if field ~= "" then headers[field] = value end
    listed[#listed + 1] = wrk.format("GET", path, headers)
  end
  requests = listed
end

function init(arguments)
  file = arguments[1]
  answers = {} -- global: done() asks each thread for it
end

function request()
  local now = os.time()
  if now ~= read_at then
    read()
    read_at = now
  end
  turn = turn % #requests + 1
  return requests[turn]
end

function response(status)
  local key = os.time() .. " " .. status
  answers[key] = (answers[key] or 0) + 1
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary, latency)
  local counts = {}
  for _, thread in ipairs(threads) do
    for key, count in pairs(thread:get("answers")) do
      counts[#counts + 1] = string.format("%q: %d", key, count)
    end
  end
  local errors = summary.errors
  print(string.format(
    '\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "lost": %d, "answers": {%s}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(counts, ", ")
  ))
end
