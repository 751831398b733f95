-- A BitTorrent client has stopped, or has not come for too long.
-- KEYS: info, rate, owners, names, used, sum, due, hosts, ids. ARGV: ref, id in hex; then what it
-- calls itself, if it has stopped: another one that has come to its address stays.
-- Returns 1 if it is listed no more.
local member = ARGV[2] .. '/' .. ARGV[1]
local known = redis.call('HGET', KEYS[9], ARGV[1])
if not known then
    redis.call('ZREM', KEYS[7], member)
    return 0
end
if ARGV[3] then
    if string.sub(known, 1, 20) ~= ARGV[3] then
        return 0
    end
else
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if tonumber(redis.call('ZSCORE', KEYS[7], member) or '0') > now then
        return 0
    end
end
redis.call('ZREM', KEYS[7], member)
redis.call('HDEL', KEYS[9], ARGV[1])
local host = string.sub(known, 21)
if redis.call('HINCRBY', KEYS[8], host, -1) <= 0 then
    redis.call('HDEL', KEYS[8], host)
end
local entry = redis.call('HGET', KEYS[3], ARGV[1])
if not entry then
    return 0
end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if string.sub(entry, 1, 1) == '1' then
    redis.call('HINCRBY', KEYS[1], 'complete', -1)
end
if redis.call('HLEN', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[9])
    redis.call('HINCRBY', KEYS[6], 'contents', -1)
end
return 1
