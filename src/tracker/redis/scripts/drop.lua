-- A peer owns some contents no more. One that is dead, has been so for long enough and owns
-- nothing is forgotten.
-- KEYS: peer, own, due, hosts, extra, spent, sum. ARGV: ref, ids.
-- Returns 1 if it is forgotten, or 2 if it had left by itself.
local peer = redis.call('HMGET', KEYS[1], 'host', 'dead')
local host = peer[1]
if not host then
    return 0
end
local owned = redis.call('SCARD', KEYS[2])
local dropped, less = 0, 0
for at = 2, #ARGV do
    if redis.call('SREM', KEYS[2], ARGV[at]) == 1 then
        dropped = dropped + 1
        if owned - dropped > 0 then
            less = less + 1
        end
    end
end
if dropped > 0 then
    redis.call('HINCRBY', KEYS[7], 'owned', -dropped)
end
if less > 0 and redis.call('HINCRBY', KEYS[5], host, -less) <= 0 then
    redis.call('HDEL', KEYS[5], host)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or '0')
if not peer[2] or owned > dropped or due > now then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
if peer[2] == '1' and redis.call('HINCRBY', KEYS[4], host, -1) <= 0 then
    redis.call('HDEL', KEYS[4], host)
end
if redis.call('HEXISTS', KEYS[4], host) == 0 then
    redis.call('HDEL', KEYS[6], host)
end
return tonumber(peer[2])
