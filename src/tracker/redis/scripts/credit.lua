-- An upload of a peer, which somebody has reported, counts once.
-- KEYS: peer, once. ARGV: bytes, half-life in s, when the store was founded in ms, for how
-- long it is kept that this was counted, in ms.
-- Returns 1 if what lists the peer must be brought up to date.
if not redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[4]) then
    return 0
end
local peer = redis.call('HMGET', KEYS[1], 'host', 'dead', 'score')
if not peer[1] or peer[2] then
    return 0
end
local time = redis.call('TIME')
local seconds = time[1] + time[2] / 1000000 - tonumber(ARGV[3]) / 1000
local ln2, half_life = math.log(2), tonumber(ARGV[2])
-- As `RateDecay` of the registry: scores do not change with time, nor does their order.
local score = math.log(tonumber(ARGV[1]) * ln2 / half_life) / ln2 + seconds / half_life
local before = tonumber(peer[3] or '')
if before then
    local low, high = math.min(before, score), math.max(before, score)
    score = high + math.log(1 + 2 ^ (low - high)) / ln2
end
redis.call('HSET', KEYS[1], 'score', string.format('%.17g', score))
redis.call('HINCRBY', KEYS[1], 'bytes', ARGV[1])
if before and math.floor(before) == math.floor(score) then
    return 0
end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 1
