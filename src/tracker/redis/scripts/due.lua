-- Whose lease is over, or who has left long enough ago.
-- KEYS: due. ARGV: how many at most.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
    'LIMIT', 0, ARGV[1])
