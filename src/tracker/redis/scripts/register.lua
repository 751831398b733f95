-- A new peer.
-- KEYS: peer, due, hosts. ARGV: ref, lease in ms, host, address or nothing, its family,
-- most peers of the host.
-- Returns 'taken' if the reference is in use, 'full' if the host has no place, or 'ok'.
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 'taken'
end
if tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '0') >= tonumber(ARGV[6]) then
    return 'full'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
redis.call('HSET', KEYS[1], 'host', ARGV[3], 'addr', ARGV[4], 'family', ARGV[5],
    'rev', 0, 'reported', string.format('%.0f', now))
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
return 'ok'
