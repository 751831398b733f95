-- The lease of a peer is over, unless it has been heard of meanwhile.
-- KEYS: peer, own, due. ARGV: ref, how many ids at most.
-- Returns nothing if it goes on; else some of what it owns.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not due or tonumber(due) > now then
    return false
end
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
    return false
end
redis.call('HSETNX', KEYS[1], 'dead', 1)
return redis.call('SRANDMEMBER', KEYS[2], ARGV[2])
