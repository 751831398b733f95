-- UPDATE, as it concerns the one who reports: how much it can have received.
-- KEYS: peer, due, hosts, spent, once. ARGV: ref, lease in ms, bytes, most bytes per second,
-- for how long the answer is kept, in ms.
-- Returns nothing if it is not known; else the bytes that count. The same report has the
-- same answer, also if it comes again.
local peer = redis.call('HMGET', KEYS[1], 'host', 'dead', 'reported')
local host = peer[1]
if not host or peer[2] then
    return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, rate = tonumber(ARGV[2]), tonumber(ARGV[4])
redis.call('ZADD', KEYS[2], now + lease, ARGV[1])
local answered = redis.call('GET', KEYS[5])
if answered then
    return answered
end
-- Until when its reports have used what it can have received. Those that come together,
-- since they had to wait, share what there is.
local used = math.max(tonumber(peer[3]), now - lease)
local bytes = math.max(0, math.min(tonumber(ARGV[3]), math.floor((now - used) * rate / 1000)))
if rate > 0 then
    used = used + math.ceil(bytes * 1000 / rate)
end
redis.call('HSET', KEYS[1], 'reported', string.format('%.0f', used))
-- A host with one peer needs no entry: the reports of that one bound it.
used = redis.call('HGET', KEYS[4], host)
if used or tonumber(redis.call('HGET', KEYS[3], host) or '0') > 1 then
    used = math.max(tonumber(used or '0'), now - lease)
    bytes = math.max(0, math.min(bytes, math.floor((now - used) * rate / 1000)))
    if rate > 0 then
        used = used + math.ceil(bytes * 1000 / rate)
    end
    redis.call('HSET', KEYS[4], host, string.format('%.0f', used))
end
local answer = string.format('%.0f', bytes)
redis.call('SET', KEYS[5], answer, 'PX', ARGV[5])
return answer
