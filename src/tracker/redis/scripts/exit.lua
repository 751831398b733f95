-- A peer leaves. It is forgotten after a while, when nothing that it has said before can
-- arrive any more.
-- KEYS: peer, due, hosts. ARGV: ref, that while in ms.
-- Returns 1 if it was known.
local peer = redis.call('HMGET', KEYS[1], 'host', 'dead')
if not peer[1] or peer[2] then
    return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'dead', 2)
if redis.call('HINCRBY', KEYS[3], peer[1], -1) <= 0 then
    redis.call('HDEL', KEYS[3], peer[1])
end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
return 1
